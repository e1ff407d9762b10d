package node_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// retaining is a cluster that keeps history for an hour.
type retaining struct {
	*testcluster.Cluster
	readings map[string]*countedClock // by node
}

// countedClock counts how often it is read, which shows that a node has looked around.
type countedClock struct {
	clock.Clock
	reads atomic.Int64
}

func (c *countedClock) Now() time.Time {
	c.reads.Add(1)
	return c.Clock.Now()
}

func startRetaining(t *testing.T) retaining {
	r := retaining{readings: map[string]*countedClock{}}
	r.Cluster = testcluster.Start(t, testcluster.Options{Splits: "uniform:4", Edit: func(name string, cfg *node.Config) {
		cfg.HistoryRetention = time.Hour
		r.readings[name] = &countedClock{Clock: cfg.Clock}
		cfg.Clock = r.readings[name]
	}})
	return r
}

// look waits until every node has looked at its clock and those of the others a few times.
func (r retaining) look(t *testing.T) {
	t.Helper()
	const reads = 2 * 5 // a look reads it five times
	from := map[string]int64{}
	for name, c := range r.readings {
		from[name] = c.reads.Load()
	}
	for name, c := range r.readings {
		testcluster.Until(t, name+" to look around", func() bool { return c.reads.Load() >= from[name]+reads })
	}
}

// setClocks makes it later on all nodes and waits until they trust each other again.
func (r retaining) setClocks(t *testing.T, later time.Duration) {
	t.Helper()
	for _, n := range r.Nodes() {
		n.Clock.Set(later)
	}
	r.look(t)
}

func (r retaining) compacted() shard.Revision { return r.Node(1).Inside().Map().Compacted() }

// logged is how far the logs of all groups have come, on every node.
func (r retaining) logged(t *testing.T) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for _, n := range r.Nodes() {
		st, err := r.Client(t, n).Status(t.Context(), n.ClientAddr())
		require.NoError(t, err)
		all[n.Name+" meta"] = st.RaftAppliedIndex
		n.Inside().Host().Each(func(replica *replica.Replica) { all[fmt.Sprint(n.Name, " ", replica.ID())] = replica.View().Applied })
	}
	return all
}

// What is older than the retention is compacted and removed; what is younger stays. When
// everything is old there is one last compaction, and after it nobody writes anything.
func TestHistoryRetention(t *testing.T) {
	t.Parallel()
	c := startRetaining(t)
	client := c.Client(t, c.Node(1))
	first := put(t, client, spread(0, "k"), "1")
	old := put(t, client, spread(0, "k"), "2")
	c.setClocks(t, 40*time.Minute)
	require.Zero(t, c.compacted())
	young := put(t, client, spread(3, "k"), "1")
	c.setClocks(t, 90*time.Minute)
	testcluster.Until(t, "a compaction", func() bool { return int64(c.compacted()) == old })
	testcluster.Eventually(t, "a read to be refused", func(ctx context.Context) error {
		_, err := client.Get(ctx, spread(0, "k"), clientv3.WithRev(first))
		if err == nil {
			return fmt.Errorf("revision %d can be read", first)
		}
		require.ErrorIs(t, err, rpctypes.ErrCompacted)
		return nil
	})
	got, err := client.Get(t.Context(), spread(0, "k"), clientv3.WithRev(young))
	require.NoError(t, err)
	require.Equal(t, "2", string(got.Kvs[0].Value))

	c.setClocks(t, 5*time.Hour)
	testcluster.Until(t, "everything to be compacted", func() bool { return int64(c.compacted()) == young })
	testcluster.Until(t, "the garbage to go everywhere", func() bool {
		behind := 0
		for _, n := range c.Nodes() {
			n.Inside().Host().Each(func(r *replica.Replica) {
				if int64(r.Collected()) != young {
					behind++
				}
			})
		}
		return behind == 0
	})
	before := c.logged(t)
	c.setClocks(t, 50*time.Hour)
	require.Equal(t, before, c.logged(t), "an idle cluster writes nothing")
}

// seenByAll waits until every node has seen the revision: whichever leads a shard may tell it of a compaction.
func seenByAll(t *testing.T, c *testcluster.Cluster, rev int64) {
	t.Helper()
	for _, n := range c.Nodes() {
		testcluster.Eventually(t, n.Name+" to see the revision", func(ctx context.Context) error {
			st, err := c.Client(t, n).Status(ctx, n.ClientAddr())
			if err == nil && st.Header.Revision < rev {
				err = fmt.Errorf("it has seen %d", st.Header.Revision)
			}
			return err
		})
	}
}

// A list of keys that nobody writes to names a revision from which they can be watched for nearly as long as history
// is kept, though others are written and compacted. An older one cannot be watched, as in etcd.
func TestAListOfIdleKeysCanBeWatchedLater(t *testing.T) {
	t.Parallel()
	c := startRetaining(t)
	client := c.Client(t, c.Node(1))
	idle, busy := spread(3, "k"), spread(0, "k")
	put(t, client, idle, "1")
	old := put(t, client, busy, "1")
	c.setClocks(t, 40*time.Minute)
	young := put(t, client, busy, "2")
	seenByAll(t, c.Cluster, young)
	c.setClocks(t, 90*time.Minute)
	testcluster.Until(t, "a compaction", func() bool { return int64(c.compacted()) == old })
	var listed int64
	testcluster.Eventually(t, "the idle shard to hear of the compaction", func(ctx context.Context) error {
		got, err := client.Get(ctx, idle)
		if err != nil {
			return err
		}
		if listed = got.Header.Revision; listed < old {
			return fmt.Errorf("revision %d", listed)
		}
		return nil
	})
	require.Equal(t, young, listed, "the latest of all shards when the compaction was carried out")

	last := put(t, client, busy, "3")
	c.setClocks(t, 130*time.Minute)
	testcluster.Until(t, "all to know of the next compaction", func() bool {
		return !slices.ContainsFunc(c.Nodes(), func(n *testcluster.Node) bool { return int64(n.Inside().Map().Compacted()) != young })
	})
	next := put(t, client, idle, "2")
	for _, n := range c.Nodes() {
		w := watching(t, t.Context(), c.Client(t, n), idle, clientv3.WithRev(listed+1))
		require.Equal(t, next, w.take(1)[0].Kv.ModRevision)
		resp := <-c.Client(t, n).Watch(t.Context(), idle, clientv3.WithRev(old+1))
		require.Equal(t, rpctypes.ErrCompacted, resp.Err())
		require.EqualValues(t, young, resp.CompactRevision)
	}
	require.Equal(t, last, watching(t, t.Context(), client, busy, clientv3.WithRev(listed+1)).take(1)[0].Kv.ModRevision)
}

// While nodes of two versions replicate a shard, a compaction does with it what the older version knows.
func TestCompactionsDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4", Edit: func(_ string, cfg *node.Config) { cfg.Version = "v1.0.0" }})
	client := c.Client(t, c.Node(1))
	idle, busy := spread(3, "k"), spread(0, "k")
	put(t, client, idle, "1")
	upgrade := func(n *testcluster.Node) {
		n.Edit(func(cfg *node.Config) { cfg.Version = "v1.1.0" })
		n.Restart(t)
	}
	versions := func(of *testcluster.Node) (list []string) {
		for _, n := range of.Inside().Map().Nodes() {
			list = append(list, n.ServerVersion)
		}
		return list
	}
	known := func(want ...string) {
		t.Helper()
		testcluster.Until(t, "all to know what the others run", func() bool {
			return !slices.ContainsFunc(c.Nodes(), func(n *testcluster.Node) bool { return !slices.Equal(want, versions(n)) })
		})
	}
	upgrade(c.Node(3))
	known("v1.0.0", "v1.0.0", "v1.1.0")
	compact := func() (compacted, last, listed int64) {
		compacted = put(t, client, busy, "compacted")
		last = put(t, client, busy, "last")
		seenByAll(t, c, last)
		_, err := client.Compact(t.Context(), compacted)
		require.NoError(t, err)
		got, err := client.Get(t.Context(), idle)
		require.NoError(t, err)
		return compacted, last, got.Header.Revision
	}
	compacted, _, listed := compact()
	require.Equal(t, compacted, listed)
	upgrade(c.Node(2))
	upgrade(c.Node(1))
	known("v1.1.0", "v1.1.0", "v1.1.0")
	_, last, listed := compact()
	require.Equal(t, last, listed)
}

// A node whose clock is a day ahead compacts nothing that is young by the others' clocks,
// though it leads the group that records compactions.
func TestHistoryRetentionWithAWrongClock(t *testing.T) {
	t.Parallel()
	c := startRetaining(t)
	client := c.Client(t, c.Node(1))
	put(t, client, spread(0, "k"), "1")
	rev := put(t, client, spread(0, "k"), "2")
	st, err := client.Status(t.Context(), c.Node(1).ClientAddr())
	require.NoError(t, err)
	leader := c.Node(int(st.Leader))
	leader.Clock.Set(24 * time.Hour)
	testcluster.Until(t, "the node to say it", func() bool { return leader.Logged("not proposing: this node's clock is") })
	c.look(t)
	require.Zero(t, c.compacted())
	leader.Clock.Set(0)
	c.look(t)
	require.Zero(t, c.compacted())
	_, err = client.Get(t.Context(), spread(0, "k"), clientv3.WithRev(rev))
	require.NoError(t, err)
}

// A physical compaction is answered when the node's own replicas have removed everything.
func TestCompactPhysical(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	client := c.Client(t, c.Node(2))
	var rev int64
	for i := range 200 {
		rev = put(t, client, spread(i, "k"), fmt.Sprint(i))
	}
	_, err := client.Compact(t.Context(), rev, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	c.Node(2).Inside().Host().Each(func(r *replica.Replica) {
		require.GreaterOrEqual(t, int64(r.Collected()), rev, "shard %s", r.ID())
	})
}
