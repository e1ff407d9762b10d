package rpcfront

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// service is etcd's KV and Watch as far as tests use them.
type service struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	// handle and watch, if there are any, replace what Range and Watch do.
	handle func(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error)
	watch  func(pb.Watch_WatchServer) error
}

// Range answers with as many bytes as it is asked for, or with the error that the key names.
func (s *service) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if s.handle != nil {
		return s.handle(ctx, r)
	}
	if named, err := outcomeOf(r.Key); named {
		return nil, err
	}
	return &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: r.Key, Value: make([]byte, r.Limit)}}}, nil
}

// outcomeOf is what a key names.
func outcomeOf(key []byte) (named bool, err error) {
	switch string(key) {
	case "status":
		return true, status.Error(codes.FailedPrecondition, "50% of it is missing: größer\n\xff~")
	case "details":
		st, err := status.New(codes.ResourceExhausted, "").WithDetails(durationpb.New(time.Second))
		if err != nil {
			return true, err
		}
		return true, st.Err()
	case "error":
		return true, errors.New("plain")
	case "canceled":
		return true, context.Canceled
	case "nil":
		return true, nil
	}
	return false, nil
}

// Watch answers each creation with as many bytes as its start revision says, and ends as its key does.
func (s *service) Watch(stream pb.Watch_WatchServer) error {
	if s.watch != nil {
		return s.watch(stream)
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if len(metadata.ValueFromIncomingContext(stream.Context(), "wait")) > 0 {
				<-stream.Context().Done()
			}
			return nil
		}
		if err != nil {
			return err
		}
		create := r.GetCreateRequest()
		if named, err := outcomeOf(create.GetKey()); named {
			return err
		}
		if err := stream.Send(&pb.WatchResponse{CancelReason: string(make([]byte, create.GetStartRevision()))}); err != nil {
			return err
		}
	}
}

// served is a Server at an address.
type served struct {
	*Server
	addr string
	stop func()
}

const (
	maxRecvBytes = 100_000
	pingMinTime  = time.Minute
)

func options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(maxRecvBytes), grpc.ForceServerCodecV2(encoding.GetCodecV2(proto.Name))}
}

func config() Config {
	return Config{Codec: encoding.GetCodecV2(proto.Name), MaxRecvBytes: maxRecvBytes, MaxStreams: 1 << 20, PingMinTime: pingMinTime}
}

func serve(t testing.TB, cfg Config, s *service, opts ...grpc.ServerOption) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return serveAt(t, l, cfg, s, opts...)
}

func serveAt(t testing.TB, l net.Listener, cfg Config, s *service, opts ...grpc.ServerOption) *served {
	front := New(l, cfg, append(options(), opts...)...)
	pb.RegisterKVServer(front, s)
	pb.RegisterWatchServer(front, s)
	done := make(chan error, 1)
	go func() { done <- front.Run() }()
	stop := sync.OnceFunc(func() {
		front.Stop()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return &served{front, l.Addr().String(), stop}
}

// serveGRPC is the same without this package.
func serveGRPC(t testing.TB, s *service) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(append(options(), behindOptions()...)...)
	pb.RegisterKVServer(server, s)
	pb.RegisterWatchServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-done)
	})
	return l.Addr().String()
}

func dial(t testing.TB, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}
