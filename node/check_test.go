package node_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// check has the replicas of a shard compared through a node.
func check(t *testing.T, c *testcluster.Cluster, n *testcluster.Node, id shard.ID) *adminpb.CheckReply {
	t.Helper()
	var reply *adminpb.CheckReply
	testcluster.Eventually(t, "the replicas to be compared", func(ctx context.Context) (err error) {
		reply, err = admin(t, c, n).Check(ctx, &adminpb.CheckRequest{Shard: uint64(id)})
		return err
	})
	return reply
}

// results is what a check found, by node.
func results(reply *adminpb.CheckReply) map[string]string {
	out := make(map[string]string)
	for _, r := range reply.Replicas {
		out[r.Node] = r.Result
	}
	return out
}

// alterKey changes the value of a key on a node behind its back, and returns when the node
// runs again.
func alterKey(t *testing.T, n *testcluster.Node, key, value string) {
	t.Helper()
	testcluster.Until(t, n.Name+" to have the key", func() bool {
		r, runs := n.Inside().Host().Replica(n.Inside().Map().Lookup([]byte(key)).ID)
		if !runs {
			return false
		}
		resp, err := r.Range(&pb.RangeRequest{Key: []byte(key)}, 0)
		return err == nil && len(resp.Kvs) == 1
	})
	n.Stop()
	withStore(t, n, func(e *engine.Engine) {
		it, err := e.NewReader().NewIter(nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, it.Close()) }()
		require.True(t, it.SeekGE(engine.DataPrefix([]byte(key))))
		found, _, ok := engine.DecodeDataKey(it.Key())
		require.True(t, ok)
		require.Equal(t, key, string(found))
		record, err := it.ValueAndErr()
		require.NoError(t, err)
		record = append(slices.Clone(record[:len(record)-len(value)]), value...)
		b := e.NewBatch()
		require.NoError(t, b.Set(it.Key(), record, pebble.NoSync))
		require.NoError(t, e.Commit(b))
		require.NoError(t, b.Close())
	})
	n.Start(t)
}

// corrupt are the members that the alarm list names.
func corrupt(t *testing.T, c *testcluster.Cluster) []uint64 {
	t.Helper()
	var out []uint64
	testcluster.Eventually(t, "the list of alarms", func(ctx context.Context) error {
		out = nil
		resp, err := c.Client(t, c.Node(1)).AlarmList(ctx)
		if err != nil {
			return err
		}
		for _, a := range resp.Alarms {
			require.Equal(t, pb.AlarmType_CORRUPT, a.Alarm)
			out = append(out, a.MemberID)
		}
		slices.Sort(out)
		return nil
	})
	return out
}

// requireHealth waits until a node's readiness is what it should be.
func requireHealth(t *testing.T, n *testcluster.Node, want int) {
	t.Helper()
	testcluster.Eventually(t, n.Name+" to say how it is", func(context.Context) error {
		resp, err := http.Get("http://" + n.ClientAddr() + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != want {
			err = fmt.Errorf("it answers %d: %s", resp.StatusCode, body)
		}
		return err
	})
}

// A replica whose value changed behind its back is found, serves nothing from then on, not
// after a restart either, and is replaced. The others go on. The alarm stays until somebody
// has seen it.
func TestDamagedReplicaIsQuarantinedAndReplaced(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Balance: true, Splits: "m"})
	_, err := admin(t, c, c.Node(1)).Set(t.Context(), &adminpb.SetRequest{Name: "rebalance", Value: "off"})
	require.NoError(t, err)
	client := c.Client(t)
	for _, key := range []string{"a", "b", "z"} {
		put(t, client, key, "good")
	}
	d := c.Node(1).Inside().Map().Lookup([]byte("a"))
	other := c.Node(1).Inside().Map().Lookup([]byte("z"))
	require.Equal(t, "agree", check(t, c, c.Node(2), d.ID).Verdict)
	ill := nodeOf(t, c, d.Replicas[1].Node)
	was, _ := d.ReplicaOn(id(ill))
	alterKey(t, ill, "a", "evil")

	reply := check(t, c, c.Node(1), d.ID)
	require.Equal(t, "damaged", reply.Verdict)
	for node, result := range results(reply) {
		require.Equal(t, node == ill.Name, result == "differs", "%s %s", node, result)
	}
	require.Equal(t, []uint64{uint64(id(ill))}, corrupt(t, c))
	require.Equal(t, "agree", check(t, c, c.Node(1), other.ID).Verdict)
	for _, n := range c.Nodes() {
		requireValue(t, c.Client(t, n), "a", "good")
		requireHealth(t, n, map[bool]int{true: 503, false: 200}[n == ill])
	}
	requireShown(t, c, d.ID, ill, "quarantined")
	ill.Restart(t)
	requireShown(t, c, d.ID, ill, "quarantined")
	requireValue(t, c.Client(t, ill), "a", "good")
	put(t, c.Client(t, ill), "b", "more")

	requireReplaced(t, c, d.ID, was.ID)
	requireHealth(t, ill, 200)

	require.Equal(t, []uint64{uint64(id(ill))}, corrupt(t, c), "somebody should look at that disk")
	_, err = c.Client(t).AlarmDisarm(t.Context(), &clientv3.AlarmMember{MemberID: uint64(id(ill)), Alarm: pb.AlarmType_CORRUPT})
	require.NoError(t, err)
	testcluster.Until(t, "the alarm to be gone", func() bool { return len(corrupt(t, c)) == 0 })
}

// requireReplaced lets the balancer replace a replica, and waits until all of the shard's hold the same again.
func requireReplaced(t *testing.T, c *testcluster.Cluster, id shard.ID, was shard.ReplicaID) {
	t.Helper()
	briskly(t, c.Node(1), map[string]string{"rebalance": "on"})
	testcluster.Eventually(t, "the replica to be replaced", func(context.Context) error {
		m := c.Node(1).Inside().Map()
		if d := m.Shard(id); len(m.Operators()) > 0 || len(d.Replicas) != 3 || d.NodeOf(was) != 0 {
			return fmt.Errorf("replicas %v, operators %v", d.Replicas, m.Operators())
		}
		return nil
	})
	testcluster.Until(t, "the replicas to agree", func() bool { return check(t, c, c.Node(1), id).Verdict == "agree" })
	requireSame(t, c)
}

// Where no majority holds the same nobody is in quarantine, and the shard takes no writes
// until a majority does again, or somebody decides.
func TestDisputedShard(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "m"})
	client := c.Client(t)
	put(t, client, "a", "good")
	put(t, client, "z", "good")
	d := c.Node(1).Inside().Map().Lookup([]byte("a"))
	alterKey(t, c.Node(2), "a", "evil")
	alterKey(t, c.Node(3), "a", "mean")
	client = c.Client(t)

	require.Equal(t, "disputed", check(t, c, c.Node(1), d.ID).Verdict)
	refused := func(ctx context.Context) error {
		if _, err := client.Put(ctx, "a", "new"); err != rpctypes.ErrCorrupt {
			return fmt.Errorf("a put answers %v", err)
		}
		return nil
	}
	testcluster.Eventually(t, "writes to be refused", refused)
	put(t, client, "z", "other shards go on")
	_, err := client.Get(t.Context(), "a")
	require.NoError(t, err, "to see what there is")
	require.Len(t, corrupt(t, c), 3)
	c.StopAll()
	c.StartAll(t)
	client = c.Client(t)
	testcluster.Eventually(t, "writes to be refused after a restart", refused)

	alterKey(t, c.Node(3), "a", "good")
	client = c.Client(t)
	require.Equal(t, "damaged", check(t, c, c.Node(1), d.ID).Verdict)
	testcluster.Eventually(t, "writes to go on", func(ctx context.Context) error {
		_, err := client.Put(ctx, "a", "new")
		return err
	})
	require.Equal(t, []uint64{uint64(id(c.Node(2)))}, corrupt(t, c))
}

// Somebody decides: writes go on, and what is held where is as it was.
func TestDisputeIsDisarmed(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	put(t, c.Client(t), "a", "good")
	alterKey(t, c.Node(2), "a", "evil")
	alterKey(t, c.Node(3), "a", "mean")
	client := c.Client(t)
	require.Equal(t, "disputed", check(t, c, c.Node(1), theShard(c.Node(1)).ID).Verdict)
	_, err := client.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
	require.NoError(t, err)
	testcluster.Eventually(t, "writes to go on", func(ctx context.Context) error {
		_, err := client.Put(ctx, "a", "new")
		return err
	})
	require.Empty(t, corrupt(t, c))
}

// Replicas are compared in turn, and after a split, a merge and a move, without anybody
// asking, and what differs is found so.
func TestReplicasAreComparedUnasked(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(t *testing.T, c *testcluster.Cluster){
		"in turn":       func(t *testing.T, c *testcluster.Cluster) {},
		"after a split": func(t *testing.T, c *testcluster.Cluster) { splitAt(t, c.Node(1), "m") },
		"after a merge": func(t *testing.T, c *testcluster.Cluster) { mergeAt(t, c, c.Node(1), "m") },
		"after a move": func(t *testing.T, c *testcluster.Cluster) {
			d := theShard(c.Node(1))
			to := c.Add()
			to.Start(t)
			beginMove(t, c.Node(1), d.ID, d.Replicas[0].Node, id(to))
			requireMoved(t, c.Node(1), d.ID, d.Replicas[0].Node, id(to))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testcluster.Start(t, testcluster.Options{}) // nothing is compared yet
			put(t, c.Client(t), "a", "good")
			if name == "after a merge" {
				splitAt(t, c.Node(1), "m")
			}
			c.StopAll()
			for _, n := range c.Nodes() {
				n.Edit(func(cfg *node.Config) {
					cfg.CorruptCheckTime = time.Hour
					if name == "in turn" {
						cfg.CorruptCheckTime = 100 * time.Millisecond
					}
				})
			}
			c.StartAll(t)
			ill := nodeOf(t, c, theShard(c.Node(1)).Replicas[1].Node)
			alterKey(t, ill, "a", "evil")
			begin(t, c)
			testcluster.Until(t, "an alarm", func() bool { return slices.Equal(corrupt(t, c), []uint64{uint64(id(ill))}) })
		})
	}
}

// A copy that misses some of the keys is found when the move has ended, and the node that
// has it passes it over.
func TestABadCopyIsFound(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Edit: func(_ string, cfg *node.Config) {
		cfg.CorruptCheckTime, cfg.RaftLogEntries, cfg.Knobs.Replica.ForgetSpanTail = time.Hour, 20, true
	}})
	client := c.Client(t)
	for i := range 200 { // so that the log does not reach back
		put(t, client, spread(i%16, fmt.Sprint(i)), "v")
	}
	last := spread(15, "15")
	to := c.Add()
	to.Start(t)
	d := theShard(c.Node(1))
	beginMove(t, c.Node(1), d.ID, d.Replicas[1].Node, id(to))
	requireMoved(t, c.Node(1), d.ID, d.Replicas[1].Node, id(to))
	testcluster.Until(t, "an alarm", func() bool { return slices.Equal(corrupt(t, c), []uint64{uint64(id(to))}) })
	requireShown(t, c, d.ID, to, "quarantined")
	requireValue(t, c.Client(t, to), last, "v")
}
