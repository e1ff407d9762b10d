package adminapi

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// Cluster is where the server gets what it tells.
type Cluster interface {
	// Look asks the nodes and returns what is known now. It does not wait long for those
	// that do not answer.
	Look(ctx context.Context) (*View, error)
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
