package node_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// leaderOf is the node that leads the shard of the key, as the node at looks at it.
func leaderOf(t *testing.T, c *testcluster.Cluster, at *testcluster.Node, key string) *testcluster.Node {
	t.Helper()
	var leader shard.NodeID
	testcluster.Until(t, "a leader of the shard of "+key, func() bool {
		r, ok := at.Inside().Host().Replica(at.Inside().Map().Lookup([]byte(key)).ID)
		if ok {
			leader = r.LeaderNode()
		}
		return leader != 0
	})
	name := at.Inside().Map().Node(leader).Name
	i := slices.IndexFunc(c.Nodes(), func(n *testcluster.Node) bool { return n.Name == name })
	return c.Nodes()[i]
}

// others returns the nodes of the cluster that are not excepted.
func others(c *testcluster.Cluster, except *testcluster.Node) []*testcluster.Node {
	var out []*testcluster.Node
	for _, n := range c.Nodes() {
		if n != except {
			out = append(out, n)
		}
	}
	return out
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	client := c.Client(t)
	var last int64
	for i := range 8 {
		last = put(t, client, spread(i, "k"), fmt.Sprint(i))
	}
	requireData := func(through *testcluster.Node) {
		t.Helper()
		for i := range 8 {
			requireValue(t, c.Client(t, through), spread(i, "k"), fmt.Sprint(i))
		}
	}
	t.Run("one node", func(t *testing.T) {
		for _, n := range c.Nodes() {
			n.Restart(t)
			requireData(n)
		}
	})
	t.Run("all nodes", func(t *testing.T) {
		c.StopAll()
		c.StartAll(t)
		for _, n := range c.Nodes() {
			requireData(n)
		}
		all, from := everything()
		resp, err := client.Get(t.Context(), all, from)
		require.NoError(t, err)
		require.Equal(t, last, resp.Header.Revision, "a restart writes nothing")
		require.Greater(t, put(t, client, spread(0, "new"), ""), last)
	})
	t.Run("all nodes, with clocks set back", func(t *testing.T) {
		last := put(t, client, spread(1, "new"), "")
		c.StopAll()
		for _, n := range c.Nodes() {
			n.Clock.Set(-24 * time.Hour)
		}
		c.StartAll(t)
		for i := range 8 {
			rev := put(t, client, spread(i, "newer"), "")
			// Within a shard order never depends on a clock; over shards the nodes have seen it.
			require.Greater(t, rev, last, "shard %d", i)
			last = rev
		}
	})
}

// Writes go on when the leader of a shard stops, and nothing acknowledged is lost.
func TestLeaderStops(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	leader := leaderOf(t, c, c.Node(1), spread(4, ""))
	rest := others(c, leader)
	w := startWriters(t, 4, c.Client(t, rest[0]), c.Client(t, rest[1]))
	testcluster.Until(t, "some writes", func() bool { return w.count() > 50 })
	leader.Stop()
	for i := range 8 {
		put(t, c.Client(t, rest[0]), spread(i, "after"), "v")
	}
	before := w.count()
	testcluster.Until(t, "writes to go on", func() bool { return w.count() > before+50 })
	w.requireKept(t, c.Client(t, rest[1]))
	leader.Start(t)
	w.requireKept(t, c.Client(t, leader))
}

// Close under load ends everything the node had under way and loses nothing.
func TestCloseUnderLoad(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	var clients []*clientv3.Client
	for _, n := range c.Nodes() {
		clients = append(clients, c.Client(t, n))
	}
	w := startWriters(t, 6, clients...)
	ctx, stopReading := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for _, client := range clients {
		readers.Go(func() {
			for ctx.Err() == nil {
				all, from := everything()
				_, _ = client.Get(ctx, all, from) // it fails from some moment on
			}
		})
	}
	testcluster.Until(t, "load", func() bool { return w.count() > 200 })
	started := time.Now()
	c.StopAll()
	require.Less(t, time.Since(started), 10*time.Second)
	w.stop()
	stopReading()
	readers.Wait()
	for _, client := range clients {
		require.NoError(t, client.Close())
	}
	require.NoError(t, goleak.Find(before))
	c.StartAll(t)
	w.requireKept(t, c.Client(t, c.Node(2)))
}
