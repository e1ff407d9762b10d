package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
)

// moveCluster is four nodes, of which the last one has no replica at first.
func moveCluster(t *testing.T, edit func(name string, cfg *node.Config)) *testcluster.Cluster {
	t.Helper()
	c := testcluster.Start(t, testcluster.Options{Edit: edit})
	c.Add().Start(t)
	return c
}

// theShard is the cluster's only shard, as the node's table has it.
func theShard(n *testcluster.Node) *shard.Descriptor { return n.Inside().Map().Lookup(nil) }

func id(n *testcluster.Node) shard.NodeID { return n.Inside().ID() }

// nodeOf is the place of the node with the ID.
func nodeOf(t *testing.T, c *testcluster.Cluster, id shard.NodeID) *testcluster.Node {
	t.Helper()
	for _, n := range c.Nodes() {
		if in := n.Inside(); in != nil && in.Map().Node(id).Name == n.Name {
			return n
		}
	}
	t.Fatalf("node %s does not run", id)
	return nil
}

// requireMoved waits until the move has ended, as the node's table says.
func requireMoved(t *testing.T, at *testcluster.Node, id shard.ID, from, to shard.NodeID) {
	t.Helper()
	testcluster.Eventually(t, "the move to end", func(context.Context) error {
		m := at.Inside().Map()
		d := m.Shard(id)
		_, stays := d.ReplicaOn(from)
		r, has := d.ReplicaOn(to)
		if m.Operator(id) != nil || stays || to != 0 && (!has || r.Learner) {
			return fmt.Errorf("shard %d is on %v, operators %v", id, d.Replicas, m.Operators())
		}
		return nil
	})
}

// requireHolds waits until the node has exactly the replicas that the table gives it.
func requireHolds(t *testing.T, n *testcluster.Node, id shard.ID, want ...shard.ReplicaID) {
	t.Helper()
	testcluster.Eventually(t, n.Name+" to hold its replicas", func(context.Context) error {
		var got []shard.ReplicaID
		for _, r := range n.Inside().Host().Held() {
			if r.Shard == id {
				got = append(got, r.Replica)
			}
		}
		if _, runs := n.Inside().Host().Replica(id); runs != (len(want) > 0) || !slices.Equal(got, want) {
			return fmt.Errorf("it holds %v of shard %d, and one runs: %v", got, id, runs)
		}
		return nil
	})
}

// A replica moves while clients write, watch and keep leases alive; then the one that
// leads. No request fails, nothing is lost.
func TestMoveUnderLoad(t *testing.T) {
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.RaftLogEntries = 100 }) // a joiner needs a snapshot
	first, fourth := c.Node(1), c.Node(4)
	client := c.Client(t)
	lease, err := client.Grant(t.Context(), 3600)
	require.NoError(t, err)
	_, err = client.Put(t.Context(), "leased", "v", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	for i := range 300 {
		put(t, client, fmt.Sprintf("old/%03d", i), "v")
	}
	load := startLoad(t, c)
	d := theShard(first)
	leader := id(leaderOf(t, c, first, ""))
	victim := d.Replicas[slices.IndexFunc(d.Replicas, func(r shard.Replica) bool { return r.Node != leader })].Node

	_, err = first.Inside().Move(t.Context(), d.ID, victim, id(fourth), "a follower")
	require.NoError(t, err)
	requireMoved(t, first, d.ID, victim, id(fourth))
	requireHolds(t, nodeOf(t, c, victim), d.ID)
	requireHolds(t, fourth, d.ID, d.NextReplicaID)

	_, err = first.Inside().Move(t.Context(), d.ID, leader, victim, "the leader")
	require.NoError(t, err)
	requireMoved(t, first, d.ID, leader, victim)
	requireHolds(t, nodeOf(t, c, leader), d.ID)
	requireHolds(t, nodeOf(t, c, victim), d.ID, d.NextReplicaID+1)

	load.stop(t)
	for _, n := range c.Nodes() {
		through := c.Client(t, n)
		load.requireAll(t, through)
		old, err := through.Get(t.Context(), "old/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		require.NoError(t, err)
		require.EqualValues(t, 300, old.Count)
		ttl, err := through.TimeToLive(t.Context(), lease.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		require.Equal(t, [][]byte{[]byte("leased")}, ttl.Keys)
	}
	_, err = client.Revoke(t.Context(), lease.ID)
	require.NoError(t, err)
	got, err := client.Get(t.Context(), "leased")
	require.NoError(t, err)
	require.Empty(t, got.Kvs)
}

// load is writers, one through each node, that count up in a key of their own, and
// somebody who watches them.
type load struct {
	cancel  context.CancelFunc
	writers sync.WaitGroup
	keys    []string
	last    []int // acknowledged, by writer
	errs    []error
	watch   clientv3.WatchChan
}

func startLoad(t *testing.T, c *testcluster.Cluster) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, last: make([]int, len(c.Nodes())), errs: make([]error, len(c.Nodes()))}
	created := c.Client(t).Watch(t.Context(), "load/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	require.True(t, (<-created).Created)
	l.watch = created
	for i, n := range c.Nodes() {
		key := fmt.Sprintf("load/%d", i)
		l.keys = append(l.keys, key)
		client := c.Client(t, n)
		l.writers.Go(func() {
			for ctx.Err() == nil {
				// Not ctx: whether the last put was acknowledged would be left open.
				if _, err := client.Put(t.Context(), key, fmt.Sprint(l.last[i]+1)); err != nil {
					l.errs[i] = err
					return
				}
				l.last[i]++
			}
		})
	}
	return l
}

// stop ends the writers. None of their puts may have failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.writers.Wait()
	require.NoError(t, errors.Join(l.errs...))
	// Every put was seen, once, in order.
	seen := make(map[string]int)
	patience := time.After(20 * time.Second)
	for i, key := range l.keys {
		require.Positive(t, l.last[i])
		for seen[key] < l.last[i] {
			select {
			case resp := <-l.watch:
				require.NoError(t, resp.Err())
				for _, e := range resp.Events {
					require.Equal(t, fmt.Sprint(seen[string(e.Kv.Key)]+1), string(e.Kv.Value), "of %s", e.Kv.Key)
					seen[string(e.Kv.Key)]++
				}
			case <-patience:
				t.Fatalf("the watch saw %v of %v", seen, l.last)
			}
		}
	}
}

// requireAll finds what was written last.
func (l *load) requireAll(t *testing.T, client *clientv3.Client) {
	t.Helper()
	for i, key := range l.keys {
		requireValue(t, client, key, fmt.Sprint(l.last[i]))
	}
}

// interruption stops the controller before a step of an operator.
type interruption struct {
	mu      sync.Mutex
	step    string
	reached chan string // the node's name
	resume  chan struct{}
}

func newInterruption() *interruption { return &interruption{reached: make(chan string, 1)} }

// before arms it for one time.
func (i *interruption) before(step string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.step, i.resume = step, make(chan struct{})
}

// at is node.Knobs.Operator.
func (i *interruption) at(ctx context.Context, name, step string) error {
	i.mu.Lock()
	hit := step == i.step
	if hit {
		i.step = ""
	}
	resume := i.resume
	i.mu.Unlock()
	if !hit {
		return nil
	}
	i.reached <- name
	select {
	case <-resume:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await returns the node whose controller has stopped there.
func (i *interruption) await(t *testing.T, c *testcluster.Cluster) *testcluster.Node {
	t.Helper()
	select {
	case name := <-i.reached:
		return c.Nodes()[slices.IndexFunc(c.Nodes(), func(n *testcluster.Node) bool { return n.Name == name })]
	case <-time.After(20 * time.Second):
		t.Fatal("the step was never reached")
		return nil
	}
}

// Whoever stops, before whichever step: the move comes to its end, no acknowledged write is
// lost, and a node that was down keeps nothing that was taken from it.
func TestMoveGoesOnAfterStops(t *testing.T) {
	stop := newInterruption()
	c := moveCluster(t, func(_ string, cfg *node.Config) { cfg.Knobs.Operator = stop.at })
	client := c.Client(t)
	ids := make([]shard.NodeID, 4)
	for i, n := range c.Nodes() {
		ids[i] = id(n)
	}
	count := 0
	for _, who := range []string{"controller", "source", "target"} {
		for _, step := range node.MoveSteps() {
			t.Run(who+" before "+step, func(t *testing.T) {
				d := theShard(c.Node(1))
				to := ids[slices.IndexFunc(ids, func(n shard.NodeID) bool { _, has := d.ReplicaOn(n); return !has })]
				from := id(leaderOf(t, c, nodeOf(t, c, d.Replicas[0].Node), ""))
				if d.PreferredNode != from {
					from = d.PreferredNode // so that no step is left out
				}
				if from == 0 {
					from = d.Replicas[0].Node
				}
				stop.before(step)
				_, err := c.Node(1).Inside().Move(t.Context(), d.ID, from, to, "a test")
				require.NoError(t, err)
				controller := stop.await(t, c)
				down := map[string]*testcluster.Node{"controller": controller, "source": nodeOf(t, c, from), "target": nodeOf(t, c, to)}[who]
				down.Stop()
				close(stop.resume)
				up := others(c, down)[0]
				put(t, c.Client(t, up), "k", fmt.Sprint(count))
				down.Start(t)
				requireMoved(t, up, d.ID, from, to)
				requireHolds(t, nodeOf(t, c, from), d.ID)
				requireHolds(t, nodeOf(t, c, to), d.ID, d.NextReplicaID)
				requireValue(t, client, "k", fmt.Sprint(count))
				count++
			})
		}
	}
}
