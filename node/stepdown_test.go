package node_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// A node that is to stop leads nothing in the end, and no client notices; when it is back
// it is given what belongs to it again.
func TestANodeStepsDown(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick, Splits: "uniform:6"})
	leads := func(n *testcluster.Node) (groups int) {
		n.Inside().Host().Each(func(r *replica.Replica) {
			if r.Leads() {
				groups++
			}
		})
		return groups
	}
	everyNode := func() bool { return leads(c.Node(1)) > 0 && leads(c.Node(2)) > 0 && leads(c.Node(3)) > 0 }
	testcluster.Until(t, "every node to lead a shard", everyNode)
	load := startLoad(t, c)
	n := c.Node(1)
	n.Inside().StepDown(t.Context())
	require.Zero(t, leads(n))
	meta, _ := n.Inside().Host().Leader(shard.MetaID)
	require.NotEqual(t, n.Inside().ID(), n.Inside().Map().Shard(shard.MetaID).NodeOf(meta))
	load.stop(t)
	n.Restart(t)
	for _, n := range c.Nodes() {
		load.requireAll(t, c.Client(t, n))
	}
	testcluster.Until(t, "every node to lead a shard again", everyNode)
}
