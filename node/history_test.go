package node_test

import (
	"context"
	"fmt"
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
	for name, c := range r.readings {
		from := c.reads.Load()
		testcluster.Until(t, name+" to look around", func() bool { return c.reads.Load() >= from+reads })
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
