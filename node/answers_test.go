package node_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/hlc"
)

// reluctant is a connection of which, after the first answers, nothing is read until it flows.
type reluctant struct {
	net.Conn
	flows <-chan struct{}
	read  *atomic.Int64
}

// Read implements net.Conn. Refusals are small, and are read.
func (r reluctant) Read(p []byte) (int, error) {
	if r.read.Load() > 16<<10 {
		<-r.flows
	}
	n, err := r.Conn.Read(p)
	r.read.Add(int64(n))
	return n, err
}

// reluctantly connects to a node, with a reluctant connection.
func reluctantly(t *testing.T, n *testcluster.Node, flows <-chan struct{}) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.ClientAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return reluctant{nc, flows, new(atomic.Int64)}, nil
		}))
	require.NoError(t, err)
	return conn
}

// answersOf is how much memory the node's answers hold, by its metrics.
func answersOf(t *testing.T, n *testcluster.Node) float64 {
	t.Helper()
	const metric = `flotilla_memory_bytes{part="answers"} `
	for line := range strings.Lines(metricsOf(t, n)) {
		if text, ok := strings.CutPrefix(line, metric); ok {
			bytes, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			require.NoError(t, err)
			return bytes
		}
	}
	t.Fatal("there is no " + metric)
	return 0
}

// Large answers that nobody takes share the memory that is theirs: what finds none is refused, whichever way it is asked for, gets are
// answered meanwhile, and when the clients are gone everything is given back.
func TestSlowReadersShareMemory(t *testing.T) {
	t.Parallel()
	// Long lists have 3 MiB, which is two answers of 1 MiB and what their keys take.
	const values, clients, fit, bound = 4, 24, 2, 3 << 20
	c := testcluster.Start(t, testcluster.Options{Nodes: 1, Splits: "m", Edit: func(_ string, cfg *node.Config) {
		cfg.MemoryBytes = 256 << 20
	}})
	quick := c.Client(t)
	value := strings.Repeat("v", 256<<10)
	for i := range values {
		put(t, quick, fmt.Sprintf("l/%d", i), value)
	}
	put(t, quick, "m/small", "v")
	holds := func() float64 { return answersOf(t, c.Node(1)) }
	require.Zero(t, holds())

	ctx, leave := context.WithCancel(t.Context())
	flows := make(chan struct{})
	var refused, other atomic.Int64
	var done sync.WaitGroup
	list := &pb.RangeRequest{Key: []byte("l/"), RangeEnd: []byte("l0")}
	ways := []func(pb.KVClient) error{
		func(kv pb.KVClient) error { // of one shard
			_, err := kv.Range(ctx, list)
			return err
		},
		func(kv pb.KVClient) error { // of two
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("l/"), RangeEnd: []byte("z")})
			return err
		},
		func(kv pb.KVClient) error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: list}}}})
			return err
		},
	}
	var conns []*grpc.ClientConn
	for i := range clients {
		conn := reluctantly(t, c.Node(1), flows)
		conns = append(conns, conn)
		done.Go(func() {
			switch err := ways[i%len(ways)](pb.NewKVClient(conn)); {
			case status.Code(err) == codes.ResourceExhausted:
				refused.Add(1)
			case err != nil && ctx.Err() == nil:
				other.Add(1)
			}
		})
	}
	most := 0.0
	testcluster.Until(t, "all are refused but those for whom there is room", func() bool {
		most = max(most, holds())
		_, err := quick.Get(t.Context(), "m/small")
		require.NoError(t, err)
		return refused.Load() == clients-fit
	})
	require.LessOrEqual(t, most, float64(bound+1<<20), "and what is a page as yet")
	require.Positive(t, holds())
	require.Zero(t, other.Load())

	leave()
	done.Wait()
	close(flows)
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	testcluster.Until(t, "everything is given back", func() bool { return holds() == 0 })
	got, err := quick.Get(t.Context(), "l/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Len(t, got.Kvs, values)
}

// The same holds, on both nodes, for what is read from another node, in one answer, as a stream, or for a native client. What is
// streamed is held part by part, a value of 256 KiB each.
func TestSlowReadersOfAnotherNodesKeys(t *testing.T) {
	t.Parallel()
	const values, each, bound, slack = 4, 6, 3 << 20, 1 << 20
	c, home, far := apart(t, testcluster.Options{Edit: func(_ string, cfg *node.Config) { cfg.MemoryBytes = 256 << 20 }}, "l")
	quick := c.Client(t, far)
	value := strings.Repeat("v", 256<<10)
	for i := range values {
		put(t, quick, fmt.Sprintf("l/%d", i), value)
	}
	put(t, quick, "l0/small", "v")
	list := &pb.RangeRequest{Key: []byte("l/"), RangeEnd: []byte("l0")}
	d := far.Inside().Map().Lookup([]byte("l/"))
	opened := make(chan *peer.Client, 2*each)
	native := func(relay shard.NodeID) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, conn *grpc.ClientConn) error {
			client := peer.NewNativeClient(conn, hlc.NewHybrid(clock.System{}), nil)
			opened <- client
			req := &router.Request{Shard: d.ID, Epoch: d.Epoch, Op: routerpb.Op_OP_RANGE, Message: list, Relay: relay}
			_, err := client.Send(ctx, req)
			return err
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	flows := make(chan struct{})
	var refused, natives, other atomic.Int64
	var done sync.WaitGroup
	ways := []struct {
		to  *testcluster.Node
		ask func(context.Context, *grpc.ClientConn) error
	}{
		{far, func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := pb.NewKVClient(conn).Range(ctx, list)
			return err
		}},
		{far, func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := pb.NewKVClient(conn).Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: list}}}})
			return err
		}},
		{far, func(ctx context.Context, conn *grpc.ClientConn) error {
			stream, err := pb.NewKVClient(conn).RangeStream(ctx, list)
			for err == nil {
				_, err = stream.Recv()
			}
			return err
		}},
		{far, native(home.Inside().ID())},
		{home, native(0)},
	}
	var conns []*grpc.ClientConn
	for _, way := range ways {
		for range each {
			conn := reluctantly(t, way.to, flows)
			conns = append(conns, conn)
			done.Go(func() {
				switch err := way.ask(ctx, conn); {
				case status.Code(err) == codes.ResourceExhausted:
					refused.Add(1)
				case errors.Is(err, shard.ErrOverloaded), errors.Is(err, shard.ErrUnavailable):
					natives.Add(1)
				case err != nil && ctx.Err() == nil:
					t.Error(err)
					other.Add(1)
				}
			})
		}
	}
	atFar, atHome := 0.0, 0.0
	// Of three ways, at most two lists and the streams have room for ever. Native clients are refused, or give up a node from
	// which nothing comes.
	testcluster.Until(t, "all are refused but those for whom there is room", func() bool {
		atFar, atHome = max(atFar, answersOf(t, far)), max(atHome, answersOf(t, home))
		_, err := quick.Get(t.Context(), "l0/small")
		require.NoError(t, err)
		return refused.Load() >= 3*each-2-each && natives.Load() == 2*each
	})
	require.LessOrEqual(t, atFar, float64(bound+slack))
	require.LessOrEqual(t, atHome, float64(bound+1<<20+2*slack), "and one answer to the other node")
	require.Positive(t, answersOf(t, far))
	require.Zero(t, other.Load())

	leave()
	done.Wait()
	close(flows)
	close(opened)
	for client := range opened {
		require.NoError(t, client.Close())
	}
	for _, conn := range conns {
		_ = conn.Close() // those of native clients are closed
	}
	testcluster.Until(t, "everything is given back", func() bool { return answersOf(t, far)+answersOf(t, home) == 0 })
	got, err := quick.Get(t.Context(), "l/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Len(t, got.Kvs, values)
}

// Writes whose previous values nobody takes are refused when those fill their room, and then nothing was written. Others go on.
func TestSlowReadersOfPreviousValues(t *testing.T) {
	t.Parallel()
	const clients, fit = 8, 3 // of 256 KiB in 768 KiB; with the third there is no room for more
	c, home, far := apart(t, testcluster.Options{Edit: func(_ string, cfg *node.Config) { cfg.MemoryBytes = 256 << 20 }}, "p")
	quick := c.Client(t, far)
	value := strings.Repeat("v", 256<<10)
	for i := range clients {
		put(t, quick, fmt.Sprintf("p/%d", i), value)
	}
	ctx, leave := context.WithCancel(t.Context())
	flows := make(chan struct{})
	var refused, other atomic.Int64
	var done sync.WaitGroup
	var conns []*grpc.ClientConn
	written := func() (n int) {
		got, err := quick.Get(t.Context(), "p/", clientv3.WithPrefix())
		require.NoError(t, err)
		for _, kv := range got.Kvs {
			if kv.Version > 1 {
				n++
			}
		}
		return n
	}
	for i := range clients { // one after the other: a write that has begun is not refused
		conn := reluctantly(t, far, flows)
		conns = append(conns, conn)
		done.Go(func() {
			_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "p/%d", i), Value: []byte("new"), PrevKv: true})
			switch {
			case status.Code(err) == codes.ResourceExhausted:
				refused.Add(1)
			case err != nil && ctx.Err() == nil:
				t.Error(err)
				other.Add(1)
			}
		})
		testcluster.Until(t, "it is written or refused", func() bool {
			put(t, quick, "p0/plain", "v")
			return int(refused.Load())+written() == i+1
		})
	}
	require.Equal(t, fit, written())
	require.Zero(t, other.Load())
	require.Positive(t, answersOf(t, far))
	leave()
	done.Wait()
	close(flows)
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	testcluster.Until(t, "everything is given back", func() bool { return answersOf(t, far)+answersOf(t, home) == 0 })
}
