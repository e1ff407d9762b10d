package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

func startGated(t *testing.T) (*testcluster.Cluster, *interruption) {
	g := newInterruption()
	c := testcluster.Start(t, testcluster.Options{Edit: func(_ string, cfg *node.Config) { cfg.Knobs.Operator = g.at }})
	return c, g
}

// requireSame checks that all replicas of every shard hold the same, and that none is
// poisoned.
func requireSame(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	testcluster.Eventually(t, "the replicas to agree", func(context.Context) error {
		sums := make(map[shard.ID]string)
		for _, n := range c.Nodes() {
			for _, d := range n.Inside().Map().OnNode(id(n)) {
				if d.ID == shard.MetaID {
					continue
				}
				r, ok := n.Inside().Host().Replica(d.ID)
				if !ok || r.View().Descriptor == nil {
					return fmt.Errorf("%s: shard %s does not run, or poisoned: %t", n.Name, d.ID, ok && r.View().Poisoned)
				}
				sum, err := r.Hash(d.Span, 0, 1<<30)
				if err != nil {
					return err
				}
				told := fmt.Sprint(r.View().Rev, sum)
				if other, ok := sums[d.ID]; ok && other != told {
					return fmt.Errorf("%s: shard %s has %s and elsewhere %s", n.Name, d.ID, told, other)
				}
				sums[d.ID] = told
			}
		}
		return nil
	})
}

// A split goes on wherever a node is restarted: the one that takes the step, or another; while
// nobody serves the keys also the one that carries out operators, and the one that leads the
// child. What was acknowledged is kept, and watches go on.
func TestSplitSurvivesRestarts(t *testing.T) {
	t.Parallel()
	c, g := startGated(t)
	audit(t, c)
	client := c.Client(t)
	watch := watchEverything(t, client)
	w := startWriters(t, 3, client)
	unserved := []string{"the seeds are left", "the child begins", "the table hears that the child serves"}
	for i, step := range node.SplitSteps() {
		victims := []string{"the node that takes it", "another"}
		if slices.Contains(unserved, step) {
			victims = append(victims, "the controller", "the child's leader")
		}
		for j, who := range victims {
			t.Logf("restart of %s before %q", who, step)
			before := w.count()
			key := spread(i, string([]byte{byte(i/8*32 + j*64)}))
			g.before(step)
			beginSplit(t, c.Node(1), key)
			n := g.await(t, c)
			switch who {
			case "another":
				n = others(c, n)[0]
			case "the controller":
				n = metaLeader(t, c)
			case "the child's leader":
				n = shardLeader(t, c, n.Inside().Map().Operator(n.Inside().Map().Lookup([]byte(key)).ID).Child.ID)
			}
			n.Restart(t)
			close(g.resume)
			waitSplit(t, c.Node(1), key)
			testcluster.Until(t, "the writers to go on", func() bool { return w.count() > before+20 })
		}
	}
	w.requireKept(t, client)
	watch.requireSaw(t, w)
	requireSame(t, c)
}

// A split does not begin while a replica is down, and can be cancelled as long as the
// keys are where they were: nothing is left of the child.
func TestSplitWithAMemberDown(t *testing.T) {
	t.Parallel()
	c, g := startGated(t)
	client := c.Client(t, c.Node(1), c.Node(2))
	put(t, client, "k", "v")
	c.Node(3).Stop()
	testcluster.Eventually(t, "the split to be refused", func(ctx context.Context) error {
		_, err := c.Node(1).Inside().Split(ctx, []byte("m"), "a test")
		if err == nil {
			return fmt.Errorf("it began")
		}
		require.ErrorContains(t, err, "all its replicas have to answer")
		return nil
	})
	c.Node(3).Start(t)

	g.before("the split is committed")
	beginSplit(t, c.Node(1), "m")
	g.await(t, c)
	op := c.Node(1).Inside().Map().Operators()[0]
	require.NoError(t, c.Node(1).Inside().CancelOperator(t.Context(), op.Shard, op.ID))
	close(g.resume)
	for _, n := range c.Nodes() {
		testcluster.Until(t, "the child's replica to be removed", func() bool {
			for _, h := range n.Inside().Host().Held() {
				if h.Shard == op.Child.ID {
					return false
				}
			}
			return true
		})
	}
	splitAt(t, c.Node(1), "m")
	requireValue(t, client, "k", "v")
	put(t, client, "z", "v")
	requireSame(t, c)
}

// A member that dies when the parent has given the keys away and not all seeds are left
// yet delays the child, which then begins with the others. When it is back it has
// what they have.
func TestSplitLosesAMember(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"the parent gives the keys away", "the seeds are left", "the child begins", "the seeds are made durable", "the logs are cut behind the split"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			c, g := startGated(t)
			client := c.Client(t)
			w := startWriters(t, 3, client)
			g.before(step)
			beginSplit(t, c.Node(1), "m")
			at := g.await(t, c)
			var victim *testcluster.Node
			for _, n := range c.Nodes() {
				if n != at {
					victim = n
				}
			}
			victim.Stop()
			close(g.resume)
			var up []*testcluster.Node
			for _, n := range c.Nodes() {
				if n != victim {
					up = append(up, n)
				}
			}
			waitSplit(t, up[0], "m")
			put(t, c.Client(t, up...), "z", "v")
			victim.Start(t)
			testcluster.Until(t, "the writers to go on", func() bool { return w.count() > 20 })
			w.requireKept(t, client)
			requireSame(t, c)
			requireWeaned(t, c)
		})
	}
}

// splitBeforeDurable splits at "m" until the child serves and no seed is durable. It returns a copy of all stores as
// they were before the split, which is what a power failure leaves of them.
func splitBeforeDurable(t *testing.T, c *testcluster.Cluster, g *interruption) (durable string) {
	t.Helper()
	g.before("the parent gives the keys away")
	beginSplit(t, c.Node(1), "m")
	g.await(t, c)
	durable = t.TempDir()
	for _, n := range c.Nodes() {
		require.NoError(t, os.CopyFS(filepath.Join(durable, n.Name), os.DirFS(storeOf(n))))
	}
	resume := g.resume
	g.before("the seeds are made durable")
	close(resume)
	g.await(t, c)
	return durable
}

// The child begins before any seed is durable. A power failure then takes the split, the seed and all that
// came after it from the stores of all nodes, and the logs bring it again.
func TestSplitOutlivesAPowerFailure(t *testing.T) {
	t.Parallel()
	c, g := startGated(t)
	audit(t, c)
	client := c.Client(t)
	put(t, client, "a", "before")
	put(t, client, "z", "before")
	durable := splitBeforeDurable(t, c, g)
	put(t, client, "a", "after")
	put(t, client, "z", "after")

	c.StopAll()
	for _, n := range c.Nodes() {
		require.NoError(t, os.RemoveAll(storeOf(n)))
		require.NoError(t, os.CopyFS(storeOf(n), os.DirFS(filepath.Join(durable, n.Name))))
	}
	c.StartAll(t)
	waitSplit(t, c.Node(1), "m")
	requireValue(t, client, "a", "after")
	requireValue(t, client, "z", "after")
	requireSame(t, c)
	requireWeaned(t, c)
}

// A child serves before the table has it. What was written to it then is past, too, for nodes that are killed and whose
// clocks are set back: what they write to another shard comes after it.
func TestKilledNodesHaveSeenASplit(t *testing.T) {
	t.Parallel()
	c, g := startGated(t)
	client := c.Client(t)
	put(t, client, "a", "before")
	durable := splitBeforeDurable(t, c, g)
	last := put(t, client, "z", "after")

	c.StopAll()
	for _, n := range c.Nodes() {
		require.NoError(t, os.RemoveAll(storeOf(n)))
		require.NoError(t, os.CopyFS(storeOf(n), os.DirFS(filepath.Join(durable, n.Name))))
		n.Clock.Set(-24 * time.Hour)
	}
	var early sync.WaitGroup
	for _, n := range c.Nodes() {
		early.Go(func() { // as soon as the node serves
			for rev := int64(0); rev == 0 && t.Context().Err() == nil; {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				client, err := clientv3.New(clientv3.Config{Endpoints: []string{n.ClientAddr()}})
				if err == nil {
					resp, err := client.Put(ctx, "a", "after")
					client.Close()
					if err == nil {
						rev = resp.Header.Revision
						assert.Greater(t, rev, last, n.Name)
					}
				}
				cancel()
			}
		})
	}
	c.StartAll(t)
	early.Wait()
}

func storeOf(n *testcluster.Node) string { return filepath.Join(n.Config().DataDir, "store") }

// requireWeaned waits until no log goes back to before a split.
func requireWeaned(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	for _, n := range c.Nodes() {
		testcluster.Until(t, "the logs to be cut behind the splits", func() bool {
			all := true
			n.Inside().Host().Each(func(r *replica.Replica) {
				all = all && r.Weaned()
			})
			return all
		})
	}
}

// A member that is cut off while the others split has a child that runs and a parent that
// does not know yet. Whichever of the two hears of it first: the replica has what the
// others have, or serves nothing and can be replaced.
func TestSplitBehindACut(t *testing.T) {
	t.Parallel()
	c, g := startGated(t)
	fourth := c.Add()
	fourth.Start(t)
	g.before("the parent gives the keys away")
	beginSplit(t, c.Node(1), "m")
	at := g.await(t, c)
	d := c.Node(1).Inside().Map().Lookup(nil)
	var victim *testcluster.Node
	for _, r := range d.Replicas {
		if n := nodeOf(t, c, r.Node); n != at && n != metaLeader(t, c) {
			victim = n
		}
	}
	var others []string
	for _, n := range c.Nodes() {
		if n != victim {
			others = append(others, n.Name)
		}
	}
	c.Network().Isolate(victim.Name, others...)
	close(g.resume)
	waitSplit(t, at, "m")
	client := c.Client(t, at)
	for i := range 50 {
		put(t, client, fmt.Sprintf("p%d", i), "v")
		put(t, client, fmt.Sprintf("a%d", i), "v")
	}
	c.Network().Heal()
	child := at.Inside().Map().Lookup([]byte("m"))
	var poisoned bool
	testcluster.Until(t, "the replica to begin, or not", func() bool {
		r, ok := victim.Inside().Host().Replica(child.ID)
		poisoned = ok && r.View().Poisoned
		return ok && (poisoned || r.View().Descriptor != nil)
	})
	t.Logf("poisoned: %t", poisoned)
	if poisoned {
		beginMove(t, at, child.ID, id(victim), id(fourth))
		requireMoved(t, at, child.ID, id(victim), id(fourth))
	}
	requireSame(t, c)
	requireValue(t, client, "p49", "v")
}
