package node_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// beginMerge begins to merge the shard that begins at the key into its left neighbour, as
// soon as that can begin. It returns the shards as they were.
func beginMerge(t *testing.T, through *testcluster.Node, key string) (left, right *shard.Descriptor) {
	t.Helper()
	testcluster.Eventually(t, "a merge to begin", func(ctx context.Context) error {
		right = through.Inside().Map().Lookup([]byte(key))
		for _, d := range through.Inside().Map().Shards() {
			if string(d.Span.End) == key {
				left = d
			}
		}
		if left == nil || string(right.Span.Start) != key {
			return fmt.Errorf("no shard begins at %q yet", key)
		}
		_, err := through.Inside().Merge(ctx, left.ID, "a test")
		return err
	})
	return left, right
}

// waitMerged waits until no shard begins at the key and nothing is left of one that did.
func waitMerged(t *testing.T, c *testcluster.Cluster, key string, right shard.ID) {
	t.Helper()
	testcluster.Eventually(t, "the merge to end", func(context.Context) error {
		for _, n := range c.Nodes() {
			if n.Inside() == nil {
				continue
			}
			m := n.Inside().Map()
			if d := m.Lookup([]byte(key)); string(d.Span.Start) == key || len(m.Operators()) > 0 {
				return fmt.Errorf("%q is in %s, operators %v", key, d.Span, m.Operators())
			}
			for _, h := range n.Inside().Host().Held() {
				if h.Shard == right {
					return fmt.Errorf("%s still has replica %d of shard %s", n.Name, h.Replica, right)
				}
			}
		}
		return nil
	})
}

func mergeAt(t *testing.T, c *testcluster.Cluster, through *testcluster.Node, key string) {
	t.Helper()
	_, right := beginMerge(t, through, key)
	waitMerged(t, c, key, right.ID)
}

// Eight shards become one under writers and watchers on all nodes: no request fails, none
// is lost, and watches tell of each once and in order.
func TestMergeUnderLoad(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	audit(t, c)
	for _, part := range []int{4, 2, 6, 1, 3, 5, 7} {
		splitAt(t, c.Node(1), spread(part, ""))
	}
	var watchers []*watcher
	var clients []*clientv3.Client
	for _, n := range c.Nodes() {
		clients = append(clients, c.Client(t, n))
		watchers = append(watchers, watchEverything(t, clients[len(clients)-1]))
	}
	w := startPatientWriters(t, 6, clients...)
	for i, part := range []int{3, 7, 1, 2, 6, 4, 5} {
		before := w.count()
		mergeAt(t, c, c.Node(1+i%3), spread(part, ""))
		testcluster.Until(t, "the writers to go on", func() bool { return w.count() > before+20 })
	}
	require.Len(t, c.Node(1).Inside().Map().Shards(), 1)
	w.requireKept(t, clients[0])
	require.Empty(t, w.mu.failed)
	for _, watcher := range watchers {
		watcher.requireSaw(t, w)
	}
	requireWeaned(t, c)
	requireSame(t, c)
}

// Leases with homes and keys on both sides of a merge are renewed and looked at as before,
// can be attached to, and take all their keys along when they are revoked.
func TestMergeKeepsLeases(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	splitAt(t, c.Node(1), spread(4, ""))
	splitAt(t, c.Node(2), spread(2, ""))
	l := grantEverywhere(t, c.Client(t))
	mergeAt(t, c, c.Node(3), spread(4, ""))
	l.requireKept(t)
	mergeAt(t, c, c.Node(1), spread(2, ""))
	l.requireRevoked(t)
}

// A replica that joins a merged shard gets its data, and no SUBSUME that would ask it for
// what the neighbour left. What was merged can be split again and merged again.
func TestMoveAfterMerge(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	fourth := c.Add()
	fourth.Start(t)
	client := c.Client(t)
	w := startWriters(t, 3, client)
	key := spread(4, "")
	splitAt(t, c.Node(1), key)
	mergeAt(t, c, c.Node(1), key)
	d := c.Node(1).Inside().Map().Lookup([]byte(key))
	from := d.Replicas[0].Node
	beginMove(t, c.Node(1), d.ID, from, id(fourth))
	requireMoved(t, c.Node(1), d.ID, from, id(fourth))
	splitAt(t, fourth, key)
	mergeAt(t, c, fourth, key)
	w.requireKept(t, client)
	requireSame(t, c)
}

// Shards that are not on the same nodes are not merged.
func TestMergeOfShardsApart(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	fourth := c.Add()
	fourth.Start(t)
	splitAt(t, c.Node(1), "m")
	right := c.Node(1).Inside().Map().Lookup([]byte("m"))
	from := right.Replicas[0].Node
	beginMove(t, c.Node(1), right.ID, from, id(fourth))
	requireMoved(t, c.Node(1), right.ID, from, id(fourth))
	left := c.Node(1).Inside().Map().Lookup(nil)
	_, err := c.Node(1).Inside().Merge(t.Context(), left.ID, "a test")
	require.ErrorContains(t, err, "move replicas until both are on the same nodes")
	_, err = c.Node(1).Inside().Merge(t.Context(), right.ID, "a test")
	require.ErrorContains(t, err, "has none")
}
