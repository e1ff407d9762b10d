package node_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard"
)

// cuts are ways to lose the network around a node.
var cuts = map[string]func(network *testcluster.Network, name string, rest []string){
	"symmetric": func(n *testcluster.Network, name string, rest []string) { n.Isolate(name, rest...) },
	"outgoing": func(n *testcluster.Network, name string, rest []string) {
		for _, o := range rest {
			n.Cut(name, o)
		}
	},
	"incoming": func(n *testcluster.Network, name string, rest []string) {
		for _, o := range rest {
			n.Cut(o, name)
		}
	},
}

// When the network around the leader of a shard is cut, the others elect another and
// writes resume; what was acknowledged stays, and the node that was cut off answers
// nothing rather than something old.
func TestCutNetworkAroundALeader(t *testing.T) {
	t.Parallel()
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
			key := spread(0, "register")
			put(t, c.Client(t), key, "before")
			lonely := leaderOf(t, c, c.Node(1), key)
			rest := others(c, lonely)
			names := []string{rest[0].Name, rest[1].Name}
			w := startWriters(t, 4, c.Client(t, rest[0]), c.Client(t, rest[1]))
			testcluster.Until(t, "some writes", func() bool { return w.count() > 40 })

			began := time.Now()
			cut(c.Network(), lonely.Name, names)
			majority := c.Client(t, rest[0])
			put(t, majority, key, "after")
			for i := range 4 {
				put(t, majority, spread(2*i, "cut"), "v")
			}
			t.Logf("writes to all shards resumed after %s", time.Since(began).Round(time.Millisecond))
			before := w.count()
			testcluster.Until(t, "writes to go on", func() bool { return w.count() > before+40 })

			cutOff := c.Client(t, lonely)
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				resp, err := cutOff.Get(ctx, key)
				cancel()
				if err == nil { // it may still reach someone, one way or the other
					require.Equal(t, "after", string(resp.Kvs[0].Value), "a linearizable read was stale")
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			_, err := cutOff.Put(ctx, spread(0, "lonely"), "v")
			cancel()
			require.Error(t, err, "nobody could have acknowledged it")

			c.Network().Heal()
			healed := time.Now()
			requireValue(t, cutOff, key, "after")
			put(t, cutOff, spread(0, "together"), "v")
			testcluster.Eventually(t, "the node that was cut off to catch up", func(ctx context.Context) error {
				return caughtUp(lonely, rest[0])
			})
			t.Logf("whole again after %s", time.Since(healed).Round(time.Millisecond))
			w.requireKept(t, c.Client(t, lonely))
		})
	}
}

// As soon as a node knows the new leader of a shard, its clients do not wait for the
// old one any more, which is cut off and answers nothing.
func TestRequestsFollowANewLeader(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	lonely := leaderOf(t, c, c.Node(1), "k")
	rest := others(c, lonely)
	client := c.Client(t, rest[0])
	put(t, client, "k", "v") // now its router knows the leader
	c.Network().Isolate(lonely.Name, rest[0].Name, rest[1].Name)
	testcluster.Until(t, "a new leader", func() bool { return leaderOf(t, c, rest[0], "k") != lonely })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := client.Put(ctx, "k", "v")
	require.NoError(t, err)
}

// The clients of a node that has no replica of a shard do not wait for one that is cut off either,
// whether it led the shard or was only the first to be asked.
func TestRequestsPassASilentNode(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 4, Splits: "uniform:4"})
	for i := range 4 {
		put(t, c.Client(t), spread(i, "k"), "v")
	}
	outside := c.Node(4) // as of all nodes, there is a shard in four of which it has no replica
	var keys []string
	for i := range 4 {
		put(t, c.Client(t, outside), spread(i, "k"), "v") // now its router knows the leaders
		if _, here := outside.Inside().Host().Replica(outside.Inside().Map().Lookup([]byte(spread(i, "k"))).ID); !here {
			keys = append(keys, spread(i, "k"))
		}
	}
	require.NotEmpty(t, keys)
	first := outside.Inside().Map().Lookup([]byte(keys[0])).Replicas[0].Node
	i := slices.IndexFunc(c.Nodes(), func(n *testcluster.Node) bool { return n.Name == outside.Inside().Map().Node(first).Name })
	lonely := c.Nodes()[i]
	rest := others(c, lonely)
	c.Network().Isolate(lonely.Name, rest[0].Name, rest[1].Name, rest[2].Name)
	testcluster.Until(t, "the node to miss it", func() bool { return !outside.Inside().Hears(first) })
	for _, key := range keys {
		for _, n := range rest {
			if _, here := n.Inside().Host().Replica(outside.Inside().Map().Lookup([]byte(key)).ID); here {
				testcluster.Until(t, "a new leader", func() bool { return leaderOf(t, c, n, key) != lonely })
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, key := range keys {
		_, err := c.Client(t, outside).Get(ctx, key)
		require.NoError(t, err)
		_, err = c.Client(t, outside).Put(ctx, key, "w")
		require.NoError(t, err)
	}
}

// Reads that were sent to a node before it was cut off do not wait for it: they are asked of others once
// it has been silent for a while. A write that was sent to it is not, and its outcome stays unknown.
func TestReadsLeaveASilentNode(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 4, Splits: "uniform:4"})
	outside := c.Node(4)
	client := c.Client(t, outside)
	var key string
	var first shard.NodeID
	for i := range 4 {
		put(t, client, spread(2*i, "k"), "v") // its router knows the leaders now
		d := outside.Inside().Map().Lookup([]byte(spread(2*i, "k")))
		if _, here := outside.Inside().Host().Replica(d.ID); !here {
			key, first = spread(2*i, "k"), d.Replicas[0].Node // of equals it is asked first
		}
	}
	require.NotEmpty(t, key, "a node has no replica of one of four shards")
	i := slices.IndexFunc(c.Nodes(), func(n *testcluster.Node) bool { return n.Inside().ID() == first })
	lonely := c.Nodes()[i]
	testcluster.Until(t, "the first replica to lead", func() bool { return leaderOf(t, c, lonely, key) == lonely })
	put(t, client, key, "before")

	rest := others(c, lonely)
	c.Network().Isolate(lonely.Name, rest[0].Name, rest[1].Name, rest[2].Name)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	written := make(chan error, 1)
	go func() {
		_, err := pb.NewKVClient(client.ActiveConnection()).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("after")})
		written <- err
	}()
	var reads sync.WaitGroup
	for name, options := range map[string][]clientv3.OpOption{
		"linearizable": nil,
		"serializable": {clientv3.WithSerializable()},
		"of all":       {clientv3.WithFromKey()},
	} {
		reads.Go(func() {
			// Without the client's own attempts.
			op := clientv3.OpGet(key, options...)
			_, err := pb.NewKVClient(client.ActiveConnection()).Range(t.Context(), &pb.RangeRequest{
				Key: op.KeyBytes(), RangeEnd: op.RangeBytes(), Serializable: op.IsSerializable(),
			})
			assert.NoError(t, err, name)
		})
	}
	reads.Wait()
	select {
	case err := <-written:
		t.Fatalf("the write has ended before the reads, which waited for the node then: %v", err)
	default:
	}
	require.Equal(t, rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeout), rpctypes.ErrorDesc(<-written), "its outcome is unknown")
	c.Network().Heal()
	got, err := client.Get(t.Context(), key)
	require.NoError(t, err)
	require.LessOrEqual(t, got.Kvs[0].Version, int64(3), "it was applied at most once")
}

// caughtUp compares what two nodes have applied.
func caughtUp(n, other *testcluster.Node) error {
	for _, d := range other.Inside().Map().Shards() {
		mine, ok := n.Inside().Host().Replica(d.ID)
		if !ok {
			return fmt.Errorf("no replica of shard %s", d.ID)
		}
		theirs, _ := other.Inside().Host().Replica(d.ID)
		if mine.View().Rev < theirs.View().Rev {
			return fmt.Errorf("shard %s is behind", d.ID)
		}
	}
	return nil
}

// Who reads where no quorum can be reached is told what etcd tells, by either face, and may try again.
func TestReadsThatTimeOut(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	put(t, c.Client(t), "k", "v")
	lonely := c.Node(1)
	c.Network().Isolate(lonely.Name, c.Node(2).Name, c.Node(3).Name)
	var work sync.WaitGroup
	defer work.Wait()
	kv := pb.NewKVClient(c.Client(t, lonely).ActiveConnection())
	for name, read := range map[string]func() error{
		"get": func() error { _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}); return err },
		"range": func() error {
			_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("m")})
			return err
		},
		"txn": func() error {
			_, err := kv.Txn(t.Context(), &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("k")}}, Success: []*pb.RequestOp{
				{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}},
			}})
			return err
		},
	} {
		work.Go(func() {
			err := read()
			assert.Equal(t, codes.Unavailable, status.Code(err), "%s: %v", name, err)
			if name != "txn" { // which etcd's clients take for a write
				assert.Equal(t, rpctypes.ErrorDesc(rpctypes.ErrGRPCTimeout), rpctypes.ErrorDesc(err), name)
			}
		})
	}
	work.Go(func() {
		code, text := post(t, lonely, "/v3/kv/range", map[string]any{"key": []byte("k")})
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.JSONEq(t, `{"code":14, "message":"etcdserver: request timed out"}`, text)
	})
}

// A node that is alone in the world waits for others, says what for, and stops at once
// when it is told to.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	put(t, c.Client(t), "k", "v")
	c.StopAll()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Node(1).Run(ctx) }()
	testcluster.Until(t, "the node to say what it waits for", func() bool { return c.Node(1).Logged("waiting_for=") })
	select {
	case err := <-done:
		require.NoError(t, err, "it should still be waiting")
		t.Fatal("it serves without a quorum")
	default:
	}
	stopped := time.Now()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Less(t, time.Since(stopped), 5*time.Second)

	go func() { done <- c.Node(1).Run(t.Context()) }()
	c.Node(2).Start(t)
	require.NoError(t, <-done)
	requireValue(t, c.Client(t, c.Node(1)), "k", "v")
}

// Start that is given up at any moment leaves nothing behind and spoils nothing.
func TestStartIsGivenUp(t *testing.T) {
	t.Parallel()
	c := testcluster.New(t, testcluster.Options{Splits: "uniform:4"})
	giveUp := errors.New("given up")
	for after := time.Duration(0); after < 1200*time.Millisecond; after += 130 * time.Millisecond {
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(after, func() { cancel(giveUp) })
		results := make(chan error, 3)
		for _, n := range c.Nodes() {
			go func() { results <- n.Run(ctx) }()
		}
		for range c.Nodes() {
			if err := <-results; err != nil {
				require.ErrorContains(t, err, "given up")
			}
		}
		timer.Stop()
		cancel(nil)
		c.StopAll()
	}
	c.StartAll(t)
	put(t, c.Client(t), "k", "v")
}

// A write that was lost with a leadership holds up nobody once the node leads again.
func TestLostProposalsHoldUpNobody(t *testing.T) {
	t.Parallel()
	c := testcluster.New(t, testcluster.Options{})
	for _, n := range c.Nodes() {
		n.Edit(func(cfg *node.Config) { cfg.ProposalTimeout = time.Hour })
	}
	c.StartAll(t)
	const key = "k"
	lonely := leaderOf(t, c, c.Node(1), key)
	rest := others(c, lonely)
	cutOff := c.Client(t, lonely)
	put(t, cutOff, key, "before")

	c.Network().Isolate(lonely.Name, rest[0].Name, rest[1].Name)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, err := cutOff.Put(ctx, key, "lost")
	cancel()
	require.Error(t, err)
	put(t, c.Client(t, rest[0]), key, "after")
	c.Network().Heal()

	// Leadership comes back, by itself or because it is asked for.
	testcluster.Until(t, "a write through the node as the leader", func() bool {
		if leader := leaderOf(t, c, rest[0], key); leader != lonely {
			yieldTo(leader, shard.FirstDataID, nodeID(lonely))
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := cutOff.Put(ctx, key, "again")
		return err == nil
	})
}

// yieldTo asks a shard's group by way of its leader, once, to let the node lead.
func yieldTo(leader *testcluster.Node, of shard.ID, node shard.NodeID) {
	host := leader.Inside().Host()
	r, _ := host.Replica(of)
	if heir, ok := r.View().Descriptor.ReplicaOn(node); ok {
		_ = host.NodeHost().RequestLeaderTransfer(uint64(of), uint64(heir.ID)) // who asks looks again
	}
}
