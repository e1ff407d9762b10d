package conformance_test

import (
	"fmt"
	"testing"

	"github.com/flotilla-kv/flotilla/internal/conformance"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// TestFlotilla asks a Flotilla of one shard: there it is etcd but for the listed
// differences. In a cluster of three the node asked does not lead the shard, so that
// writes and refusals pass between nodes.
func TestFlotilla(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			c := testcluster.Start(t, testcluster.Options{Nodes: nodes})
			conformance.Replay(t, outsider(t, c).ClientAddr(), conformance.Differences())
		})
	}
}

// TestFlotillaLeasesFarFromHome asks about leases where the scripts' keys are in one shard
// and the homes of most leases in others, and where nobody can tell.
func TestFlotillaLeasesFarFromHome(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Splits: "A,{"})
	conformance.ReplayLeases(t, c.Node(2).ClientAddr(), conformance.Differences())
}

// outsider is a node that does not lead the only shard, if there is one.
func outsider(t *testing.T, c *testcluster.Cluster) *testcluster.Node {
	t.Helper()
	first := c.Node(1).Inside()
	var leader shard.NodeID
	testcluster.Until(t, "a leader of the shard", func() bool {
		if r, ok := first.Host().Replica(first.Map().Lookup(nil).ID); ok {
			leader = r.LeaderNode()
		}
		return leader != 0
	})
	name := first.Map().Node(leader).Name
	for _, n := range c.Nodes() {
		if n.Name != name {
			return n
		}
	}
	return c.Node(1)
}
