package cmd_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// splitter is a node as a command sees it that has a shard split and waits for it. It begins
// the split as operator 7 whatever it knows itself.
type splitter struct {
	adminpb.UnimplementedAdminServer
	// operators and shards are what it answers when it is asked how far the split is; nil:
	// nothing.
	operators *adminpb.OperatorsReply
	shards    *adminpb.ShardsReply
	// lost is how many questions it leaves unanswered before.
	lost atomic.Int64
}

func (s *splitter) Split(context.Context, *adminpb.SplitRequest) (*adminpb.OperatorReply, error) {
	return &adminpb.OperatorReply{Operator: 7, Shard: 2, Key: []byte("m")}, nil
}

func (s *splitter) Operators(ctx context.Context, _ *adminpb.OperatorsRequest) (*adminpb.OperatorsReply, error) {
	if s.operators == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.lost.Add(-1) >= 0 {
		return nil, status.Error(codes.Unavailable, "etcdserver: stopping")
	}
	return s.operators, nil
}

func (s *splitter) Shards(context.Context, *adminpb.ShardsRequest) (*adminpb.ShardsReply, error) {
	return s.shards, nil
}

func (s *splitter) serve(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	adminpb.RegisterAdminServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})
	return l.Addr().String()
}

// Who waits for an operator asks one endpoint after the other, so some may be cut off, restart, or
// not know yet how it ended.
func TestWaitingThroughOtherNodes(t *testing.T) {
	whole := &adminpb.ShardsReply{Version: 6, Shards: []*adminpb.Shard{{Id: 2, Span: &adminpb.Span{}}}}
	split := &adminpb.ShardsReply{Version: 9, Shards: []*adminpb.Shard{{Id: 3, Span: &adminpb.Span{Start: []byte("m")}}}}
	given := &adminpb.ShardsReply{Version: 9, Shards: whole.Shards}
	ended := &adminpb.OperatorsReply{Version: 9}
	silentFor := func(questions int64) *splitter {
		s := &splitter{operators: ended, shards: split}
		s.lost.Store(questions)
		return s
	}
	for _, c := range []struct {
		name  string
		nodes []*splitter
		code  int
		words string
	}{
		{"one answers", []*splitter{{operators: ended, shards: split}}, 0, "operator 7 has ended"},
		{"one is silent", []*splitter{{}, {operators: ended, shards: split}}, 0, "operator 7 has ended"},
		{"one restarts", []*splitter{silentFor(3)}, 0, "waiting: etcdserver: stopping"},
		{"one is behind", []*splitter{{operators: ended, shards: whole}, {operators: ended, shards: split}}, 0, "operator 7 has ended"},
		{"it was given up", []*splitter{{operators: ended, shards: given}}, 1, "did not split shard 2"},
		{"none answers any more", []*splitter{silentFor(1 << 30)}, 3, "what was asked for goes on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var addrs []string
			for _, n := range c.nodes {
				addrs = append(addrs, n.serve(t))
			}
			var out bytes.Buffer
			args := []string{"--endpoints", strings.Join(addrs, ","), "--dial-timeout", "10s", "--command-timeout", "200ms", "shard", "split", "--at", "m", "--wait"}
			require.Equal(t, c.code, cmd.Run(t.Context(), args, &out, &out), &out)
			require.Contains(t, out.String(), c.words)
		})
	}
}
