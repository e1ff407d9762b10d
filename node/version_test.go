package node_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
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
