package node_test

import (
	"context"
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

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
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
	holds := func() float64 {
		const metric = `flotilla_memory_bytes{part="answers"} `
		for line := range strings.Lines(metricsOf(t, c.Node(1))) {
			if text, ok := strings.CutPrefix(line, metric); ok {
				bytes, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				require.NoError(t, err)
				return bytes
			}
		}
		t.Fatal("there is no " + metric)
		return 0
	}
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
		conn, err := grpc.NewClient("passthrough:///"+c.Node(1).ClientAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
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
