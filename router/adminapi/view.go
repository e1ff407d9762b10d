package adminapi

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Cluster is the server's source of information.
type Cluster interface {
	// Look collects what is known now from the nodes. It does not wait long for those that do not
	// answer.
	Look(ctx context.Context) (*View, error)
}

// Changes is how the server changes the cluster.
type Changes interface {
	// Newest is the placement table with all earlier changes, as far as the node can know.
	Newest(ctx context.Context) (*placement.Map, error)
	// Propose applies a command to the placement table. A refusal is a *placement.RefusedError;
	// after any other error the outcome is unknown.
	Propose(ctx context.Context, c *placementpb.Command) (*placementpb.Result, error)
	// ReadyToSplit returns which replicas of the shard do not answer or are unhealthy.
	ReadyToSplit(ctx context.Context, d *shard.Descriptor) error
	// ReadyToMerge returns why the replicas of two neighbours cannot be merged.
	ReadyToMerge(ctx context.Context, d, right *shard.Descriptor) error
	// Rebalance starts the steps of the plan, once, and returns those that started.
	Rebalance(ctx context.Context) ([]placement.Step, error)
	// CheckShard compares the replicas of a shard, and deals with differences.
	CheckShard(ctx context.Context, id shard.ID) (*Checked, error)
}

// View is the cluster as one node sees it at one moment.
type View struct {
	Now  time.Time
	Map  *placement.Map
	Load *placement.Load
	// Distrusted maps nodes that may not propose to the reason.
	Distrusted map[shard.NodeID]string
	// Offsets are how far the clocks of other nodes are ahead of this one's. A node that is not listed did not answer.
	Offsets map[shard.NodeID]time.Duration
	// Uptimes are how long nodes had run when they reported. A node that is not listed, or runs an earlier build, is
	// unknown.
	Uptimes map[shard.NodeID]time.Duration
	// Commits are those of the shards' leaders.
	Commits map[shard.ID]Commits
	// Terms are those of the shards' leaders.
	Terms map[shard.ID]uint64
	// Sizes are the sizes of replicas on disk, by node. A replica that is not listed is unknown.
	Sizes map[shard.ID]map[shard.NodeID]int64
	// BalancerWaits is why the balancer's last round, or steps of it, failed; empty if nothing
	// failed, or if the node that leads the meta group does not answer.
	BalancerWaits string
}

// Commits are how long a leader's log entries took lately, from being proposed until they were applied: half of them at
// most Half, 99 of 100 at most Slow. 0: there were none.
type Commits struct{ Half, Slow time.Duration }

// name is the node's name for people.
func (v *View) name(id shard.NodeID) string {
	if id == 0 {
		return ""
	}
	if n := v.Map.Node(id); n != nil {
		return n.Name
	}
	return "node " + id.String()
}

// age is the time since a report arrived in milliseconds, -1 if there was none.
func (v *View) age(heard time.Time) int64 {
	if heard.IsZero() {
		return -1
	}
	return max(v.Now.Sub(heard), 0).Milliseconds()
}
