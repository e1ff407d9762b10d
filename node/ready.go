package node

import (
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
)

// missing returns what this node still needs before it may serve clients (D4); empty if nothing.
func (n *Node) missing() string {
	m := n.table.Map()
	if m.ClusterID() == 0 {
		return "the placement table"
	}
	for _, d := range m.OnNode(n.self.NodeID) {
		if d.ID == shard.MetaID { // the table is known
			continue
		}
		leader, _ := n.host.Leader(d.ID)
		r, running := n.host.Replica(d.ID)
		own, _ := d.ReplicaOn(n.self.NodeID)
		switch {
		case own.Learner: // no request is sent to a learner
		case !running:
			return fmt.Sprintf("shard %s to start", d.ID)
		case leader == 0:
			return fmt.Sprintf("a leader of shard %s", d.ID)
		case r.Unfit() != "": // it waits to be replaced
		case r.View().Frozen != nil: // it waits to be taken over by its neighbour, or to be thawed
		case r.View().Descriptor == nil:
			return fmt.Sprintf("shard %s to be initialised", d.ID)
		}
	}
	return ""
}
