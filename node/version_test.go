package node_test

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
)

// While nodes are upgraded one by one, the table says which runs what.
func TestTheTableKnowsTheVersionsOfNodes(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Edit: func(_ string, cfg *node.Config) { cfg.Version = "v1.0.0" }})
	versions := func() (out []string) {
		for _, n := range c.Node(1).Inside().Map().Nodes() {
			out = append(out, n.ServerVersion)
		}
		return out
	}
	until := func(want ...string) {
		t.Helper()
		testcluster.Until(t, "the versions of the nodes", func() bool {
			got := versions()
			for i, v := range want {
				if got[i] != v {
					return false
				}
			}
			return true
		})
	}
	until("v1.0.0", "v1.0.0", "v1.0.0")
	untilLevels(t, c, shard.CommandLevel, shard.CommandLevel, shard.CommandLevel)

	c.Node(3).Edit(func(cfg *node.Config) { cfg.Version = "v1.1.0" })
	c.Node(3).Restart(t)
	until("v1.0.0", "v1.0.0", "v1.1.0")
	version := c.Node(1).Inside().Map().Version()
	c.Node(3).Restart(t)
	c.Node(2).Edit(func(cfg *node.Config) { cfg.Version = "v1.1.0" })
	c.Node(2).Restart(t)
	until("v1.0.0", "v1.1.0", "v1.1.0")
	require.Equal(t, version+1, c.Node(1).Inside().Map().Version(), "only the upgrade changes the table")
}

// untilLevels waits until all nodes that run know these levels of the nodes, in order.
func untilLevels(t *testing.T, c *testcluster.Cluster, want ...shard.Level) {
	t.Helper()
	for _, of := range c.Nodes() {
		testcluster.Until(t, of.Name+" to know the levels of all nodes", func() bool {
			var got []shard.Level
			for _, n := range of.Inside().Map().Nodes() {
				got = append(got, n.Level)
			}
			return slices.Equal(want, got)
		})
	}
}

// Nodes of builds from before levels are upgraded one by one. Until the last one is, the table has no levels, and each can go
// back: the copies that older builds have of the table would differ. Then all have theirs, and no older build starts or joins.
func TestLevelsAreToldOnceAllNodesAreUpgraded(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Edit: func(_ string, cfg *node.Config) { cfg.Knobs.OlderBy = 1 }})
	build := func(n *testcluster.Node, olderBy shard.Level) {
		n.Stop()
		n.Edit(func(cfg *node.Config) { cfg.Knobs.OlderBy = olderBy })
	}
	upgrade := func(n *testcluster.Node) {
		build(n, 0)
		n.Start(t)
	}
	upgrade(c.Node(1))
	upgrade(c.Node(2))
	untilLevels(t, c, 0, 0, 0)
	build(c.Node(2), 1)
	c.Node(2).Start(t)
	upgrade(c.Node(2))
	untilLevels(t, c, 0, 0, 0)
	upgrade(c.Node(3))
	untilLevels(t, c, 1, 1, 1)
	requireBound(t, c) // D6: before the table had it

	build(c.Node(2), 1)
	requireRefused(t, c.Node(2), "needs command level 1, and this build has 0", "start a build")
	upgrade(c.Node(2))
	older := c.Add()
	older.Edit(func(cfg *node.Config) { cfg.Knobs.OlderBy = 1 })
	requireRefused(t, older, "its build is too old", "start it with the build that the others run")
	older.Edit(func(cfg *node.Config) { cfg.Knobs.OlderBy = 0 })
	older.Start(t)
	untilLevels(t, c, 1, 1, 1, 1)
	requireBound(t, c)
}

// requireBound requires that no build from before levels could start on a node's directory.
func requireBound(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	for _, n := range c.Nodes() {
		identity, err := os.ReadFile(identityOf(n))
		require.NoError(t, err)
		require.Contains(t, string(identity), `"format": 2`, n.Name)
		require.Contains(t, string(identity), `"level": 1`, n.Name)
	}
}
