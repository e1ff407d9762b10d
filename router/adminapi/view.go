package adminapi

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Cluster is where the server gets what it tells.
type Cluster interface {
	// Look asks the nodes and returns what is known now. It does not wait long for those
	// that do not answer.
	Look(ctx context.Context) (*View, error)
}

// Changes is how the server changes the cluster.
type Changes interface {
	// Newest is the placement table with all that was changed before, as far as the node
	// can know.
	Newest(ctx context.Context) (*placement.Map, error)
	// Propose applies a command to the placement table. A refusal is a
	// *placement.RefusedError; after any other error the outcome is unknown.
	Propose(ctx context.Context, c *placementpb.Command) (*placementpb.Result, error)
	// ReadyToSplit says which replicas of the shard do not answer or are not well.
	ReadyToSplit(ctx context.Context, d *shard.Descriptor) error
	// ReadyToMerge says why the replicas of two neighbours cannot become one's.
	ReadyToMerge(ctx context.Context, d, right *shard.Descriptor) error
	// Rebalance begins the steps of the plan, once, and returns those that began.
	Rebalance(ctx context.Context) ([]placement.Step, error)
	// CheckShard compares what the replicas of a shard hold, and deals with what differs.
	CheckShard(ctx context.Context, id shard.ID) (*Checked, error)
}

// View is the cluster as one node sees it at a moment.
type View struct {
	Now  time.Time
	Map  *placement.Map
	Load *placement.Load
	// Distrusted says of nodes that may not propose why.
	Distrusted map[shard.NodeID]string
	// Terms are those of the shards' leaders.
	Terms map[shard.ID]uint64
	// Sizes are what replicas have on disk, by node. A replica that is not listed is unknown.
	Sizes map[shard.ID]map[shard.NodeID]int64
	// BalancerWaits is why the balancer's last round, or steps of it, came to nothing; empty: none did, or
	// the node that leads the meta group does not answer.
	BalancerWaits string
}

// name is how people call the node.
func (v *View) name(id shard.NodeID) string {
	if id == 0 {
		return ""
	}
	if n := v.Map.Node(id); n != nil {
		return n.Name
	}
	return "node " + id.String()
}

// age is how long ago a report arrived in milliseconds, -1 when there was none.
func (v *View) age(heard time.Time) int64 {
	if heard.IsZero() {
		return -1
	}
	return max(v.Now.Sub(heard), 0).Milliseconds()
}
