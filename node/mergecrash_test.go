package node_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
)

// shardLeader returns the node that leads the shard.
func shardLeader(t *testing.T, c *testcluster.Cluster, id shard.ID) *testcluster.Node {
	t.Helper()
	var leader *testcluster.Node
	testcluster.Until(t, "the shard to be led", func() bool {
		i := slices.IndexFunc(c.Nodes(), func(n *testcluster.Node) bool {
			r, ok := n.Inside().Host().Replica(id)
			return ok && r.Leads()
		})
		if i >= 0 {
			leader = c.Nodes()[i]
		}
		return i >= 0
	})
	return leader
}

// A merge goes on, or is given up and begun again, wherever a node is restarted: the one
// that takes the step, another, the leader of either shard. What was acknowledged is kept,
// and watches go on.
func TestMergeSurvivesRestarts(t *testing.T) {
	t.Parallel()
	c, g := startGated(t)
	audit(t, c)
	client := c.Client(t)
	watch := watchEverything(t, client)
	w := startWriters(t, 3, client)
	key := spread(4, "")
	for i, step := range node.MergeSteps() {
		for _, who := range []string{"the controller", "another", "the left leader", "the right leader"} {
			before := w.count()
			splitAt(t, c.Node(1), key)
			g.before(step)
			left, right := beginMerge(t, c.Node(1), key)
			at := g.await(t, c)
			victim := at
			switch who {
			case "another":
				victim = c.Nodes()[(slices.Index(c.Nodes(), at)+1)%3]
			case "the left leader":
				victim = shardLeader(t, c, left.ID)
			case "the right leader":
				victim = shardLeader(t, c, right.ID)
			}
			t.Logf("%d: restart of %s (%s) before %q on %s", i, who, victim.Name, step, at.Name)
			victim.Restart(t)
			close(g.resume)
			testcluster.Until(t, "the merge to end", func() bool { return len(c.Node(1).Inside().Map().Operators()) == 0 })
			if d := c.Node(1).Inside().Map().Lookup([]byte(key)); string(d.Span.Start) == key { // given up
				mergeAt(t, c, c.Node(1), key)
			}
			waitMerged(t, c, key, right.ID)
			testcluster.Until(t, "the writers to go on", func() bool { return w.count() > before+20 })
		}
	}
	w.requireKept(t, client)
	watch.requireSaw(t, w)
	requireWeaned(t, c)
	requireSame(t, c)
}

// A member that dies before all have said that they are frozen ends the merge: the right
// shard serves again. One that dies later delays nothing, and finds all when it is back.
func TestMergeLosesAMember(t *testing.T) {
	t.Parallel()
	for i, step := range node.MergeSteps() {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			c, g := startGated(t)
			client := c.Client(t)
			w := startWriters(t, 3, client)
			splitAt(t, c.Node(1), "m")
			g.before(step)
			_, right := beginMerge(t, c.Node(1), "m")
			at := g.await(t, c)
			var victim *testcluster.Node
			for _, n := range c.Nodes() {
				if n != at {
					victim = n
				}
			}
			victim.Stop()
			close(g.resume)
			testcluster.Until(t, "the operator to end", func() bool { return len(at.Inside().Map().Operators()) == 0 })
			var up []*testcluster.Node
			for _, n := range c.Nodes() {
				if n != victim {
					up = append(up, n)
				}
			}
			merged := string(at.Inside().Map().Lookup([]byte("m")).Span.Start) != "m"
			if step != "that it is frozen is made durable" { // it may have said so before it died
				require.Equal(t, slices.Index(node.MergeSteps(), "the merge is committed") <= i, merged)
			}
			put(t, c.Client(t, up...), "z", "v")
			victim.Start(t)
			before := w.count()
			testcluster.Until(t, "the writers to go on", func() bool { return w.count() > before+20 })
			if !merged {
				mergeAt(t, c, c.Node(1), "m")
			}
			waitMerged(t, c, "m", right.ID)
			w.requireKept(t, client)
			requireWeaned(t, c)
			requireSame(t, c)
		})
	}
}

// A node is down, or cut off, from when it has said that it is frozen until long after the
// merge, and the others' logs are cut. It gets a snapshot of what is one shard now, where the
// replica of what was another still waits.
func TestMergeBehindACut(t *testing.T) {
	t.Parallel()
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut=%t", cut), func(t *testing.T) {
			t.Parallel()
			c, g := startGated(t)
			client := c.Client(t)
			for i := range 20 {
				put(t, client, fmt.Sprintf("p%d", i), "old")
			}
			splitAt(t, c.Node(1), "m")
			g.before("the merge is committed")
			_, right := beginMerge(t, c.Node(1), "m")
			at := g.await(t, c)
			var victim *testcluster.Node
			var others []string
			for _, n := range c.Nodes() {
				if n != at && victim == nil {
					victim = n
				} else {
					others = append(others, n.Name)
				}
			}
			if cut {
				c.Network().Isolate(victim.Name, others...)
			} else {
				victim.Stop()
			}
			close(g.resume)
			testcluster.Until(t, "the merge to end", func() bool {
				m := at.Inside().Map()
				return len(m.Operators()) == 0 && string(m.Lookup([]byte("m")).Span.Start) != "m"
			})
			client = c.Client(t, at)
			for i := range 20 {
				put(t, client, fmt.Sprintf("p%d", i), "new")
			}
			splitAt2 := at.Inside().Map().Lookup([]byte("m"))
			require.NotEqual(t, right.ID, splitAt2.ID)
			if cut {
				c.Network().Heal()
			} else {
				victim.Start(t)
			}
			waitMerged(t, c, "m", right.ID)
			requireSame(t, c)
			requireValue(t, c.Client(t, victim), "p19", "new")
		})
	}
}

// A merge that is cancelled while the right shard is frozen leaves it as it was, and so
// does an order to freeze it that comes late.
func TestMergeCancelled(t *testing.T) {
	t.Parallel()
	c, g := startGated(t)
	client := c.Client(t)
	put(t, client, "z", "before")
	splitAt(t, c.Node(1), "m")
	for _, step := range []string{"the merge is started", "the right shard is frozen", "that it is frozen is made durable", "the merge is committed"} {
		g.before(step)
		left, right := beginMerge(t, c.Node(1), "m")
		g.await(t, c)
		op := c.Node(1).Inside().Map().Operator(left.ID)
		into, _ := c.Node(1).Inside().Map().Merging(op)
		require.NoError(t, c.Node(1).Inside().CancelOperator(t.Context(), left.ID, op.ID))
		close(g.resume)
		put(t, client, "z", step)
		requireValue(t, client, "z", step)

		r, _ := shardLeader(t, c, right.ID).Inside().Host().Replica(right.ID)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, r.Freeze(ctx, into, right, op.ID))
		put(t, client, "z", "late "+step)
		requireValue(t, client, "z", "late "+step)
	}
	g.before("the left shard takes the keys")
	left, _ := beginMerge(t, c.Node(1), "m")
	g.await(t, c)
	op := c.Node(1).Inside().Map().Operator(left.ID)
	require.ErrorContains(t, c.Node(1).Inside().CancelOperator(t.Context(), left.ID, op.ID), "can only be brought to its end")
	close(g.resume)
	waitMerged(t, c, "m", op.With)
	requireSame(t, c)
}
