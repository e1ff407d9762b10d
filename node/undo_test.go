package node_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// applyPlan has plans applied until one has a step of the kind, and waits until it is carried
// out. It returns where shards began before and the steps of that kind.
func applyPlan(t *testing.T, c *testcluster.Cluster, through *testcluster.Node, kind string) (before []string, steps []*adminpb.Step) {
	t.Helper()
	version := uint64(0)
	testcluster.Eventually(t, "a plan with a "+kind, func(ctx context.Context) error {
		before = boundaries(through)
		reply, err := admin(t, c, through).Rebalance(ctx, &adminpb.RebalanceRequest{})
		if err != nil {
			return err
		}
		version = reply.Version
		for _, s := range reply.Begun {
			if s.Kind == kind {
				steps = append(steps, s)
			}
		}
		if len(steps) == 0 {
			return fmt.Errorf("it begins %v", reply.Begun)
		}
		return nil
	})
	waitIdle(t, through, version)
	return before, steps
}

// undoPlan has a node undo the last plan, of which nothing may be left, and waits until that is
// carried out. Then there is nothing to undo any more, which any node knows.
func undoPlan(t *testing.T, c *testcluster.Cluster, through, other *testcluster.Node) *adminpb.UndoReply {
	t.Helper()
	would, err := admin(t, c, other).Undo(t.Context(), &adminpb.UndoRequest{DryRun: true})
	require.NoError(t, err)
	reply, err := admin(t, c, through).Undo(t.Context(), &adminpb.UndoRequest{})
	require.NoError(t, err)
	require.Empty(t, reply.Left)
	require.Len(t, would.Begun, len(reply.Begun))
	waitIdle(t, through, reply.Version)
	for _, n := range c.Nodes() {
		again, err := admin(t, c, n).Undo(t.Context(), &adminpb.UndoRequest{})
		require.NoError(t, err)
		require.Empty(t, again.Begun)
		require.Empty(t, again.Left)
	}
	return reply
}

// waitIdle waits until nothing is under way of what has begun by a version of the table.
func waitIdle(t *testing.T, at *testcluster.Node, version uint64) {
	t.Helper()
	testcluster.Until(t, "what has begun to end", func() bool {
		m := at.Inside().Map()
		return m.Version() >= version && len(m.Operators()) == 0
	})
}

// boundaries are where shards begin.
func boundaries(at *testcluster.Node) (starts []string) {
	for _, d := range at.Inside().Map().Shards() {
		starts = append(starts, string(d.Span.Start))
	}
	return starts
}

// A plan that split a shard is undone by another node while clients write and watch: the
// halves are one again, no put is lost, and a watch tells of each once and in order.
func TestAPlanThatSplitsIsUndone(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Tick: steadyTick})
	audit(t, c)
	briskly(t, c.Node(1), map[string]string{"rebalance": "off", "split-writes": "20"})
	client := c.Client(t)
	watch := watchEverything(t, client)
	w := startPatientWriters(t, 3, client)
	before, splits := applyPlan(t, c, c.Node(2), "split")
	require.Len(t, splits, 1)
	require.Len(t, boundaries(c.Node(2)), len(before)+1)

	reply := undoPlan(t, c, c.Node(3), c.Node(1))
	require.Len(t, reply.Begun, 1)
	require.Equal(t, []any{"merge", splits[0].Shard, splits[0].Key}, []any{reply.Begun[0].Kind, reply.Begun[0].Shard, reply.Begun[0].Key})
	waitMerged(t, c, string(splits[0].Key), shard.ID(reply.Begun[0].With))
	require.Equal(t, before, boundaries(c.Node(3)))
	count := w.count()
	testcluster.Until(t, "the writers to go on", func() bool { return w.count() > count+20 })
	w.requireKept(t, client)
	require.Empty(t, w.mu.failed)
	watch.requireSaw(t, w)
	requireSame(t, c)
}

// A plan that merged shards is undone by another node: each boundary is there again, with the
// replicas that the shards had, and all that they held.
func TestAPlanThatMergesIsUndone(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true})
	first, client := c.Node(1), c.Client(t)
	briskly(t, first, map[string]string{"rebalance": "off", "merge-wait": "5s"})
	for part := range 7 {
		splitAt(t, first, spread(part+1, ""))
	}
	for i := range 8 {
		put(t, client, spread(i, "k"), fmt.Sprint(i))
	}
	before, merges := applyPlan(t, c, first, "merge")
	require.Len(t, boundaries(first), len(before)-len(merges))

	reply := undoPlan(t, c, c.Node(2), c.Node(3))
	splits := 0
	for _, s := range reply.Begun {
		if s.Kind == "split" {
			splits++
		}
	}
	require.Equal(t, len(merges), splits)
	require.Equal(t, before, boundaries(c.Node(2)))
	requireVoters(t, c.Node(2), 3, id(first), id(c.Node(2)), id(c.Node(3)))
	for i := range 8 {
		requireValue(t, client, spread(i, "k"), fmt.Sprint(i))
	}
	requireSame(t, c)
}
