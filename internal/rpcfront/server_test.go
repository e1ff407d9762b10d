package rpcfront

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // on both sides
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func TestCallsAndStreamsOfManyClients(t *testing.T) {
	s := serve(t, config(), &service{})
	var wg sync.WaitGroup
	for range 4 {
		conn := dial(t, s.addr)
		for i := range 20 {
			wg.Go(func() {
				kv := pb.NewKVClient(conn)
				for j := range 30 {
					size := (i * j * 1777) % 200_000
					var opts []grpc.CallOption
					if j%7 == 0 {
						opts = append(opts, grpc.UseCompressor("gzip"))
					}
					resp, err := kv.Range(t.Context(), &pb.RangeRequest{Key: make([]byte, i*j*37), Limit: int64(size)}, opts...)
					require.NoError(t, err)
					require.Len(t, resp.Kvs[0].Value, size)
					require.Len(t, resp.Kvs[0].Key, i*j*37)
				}
			})
		}
		for i := range 5 {
			wg.Go(func() {
				stream, err := pb.NewWatchClient(conn).Watch(t.Context())
				require.NoError(t, err)
				for j := range 50 {
					size := int64(i * j * 1777)
					require.NoError(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{StartRevision: size}}}))
					resp, err := stream.Recv()
					require.NoError(t, err)
					require.Len(t, resp.CancelReason, int(size))
				}
				require.NoError(t, stream.CloseSend())
			})
		}
	}
	wg.Wait()
}

func TestHandlersSeeTheClientAndItsMetadata(t *testing.T) {
	for _, timed := range []bool{false, true} {
		seen := make(chan context.Context, 1)
		intercepted := atomic.Int32{}
		cfg := config()
		cfg.Interceptor = func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			require.Equal(t, rangePath, info.FullMethod)
			intercepted.Add(1)
			return handler(ctx, req)
		}
		s := serve(t, cfg, &service{handle: func(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
			require.Error(t, grpc.SetHeader(ctx, metadata.Pairs("a", "b")))
			seen <- ctx
			return &pb.RangeResponse{}, nil
		}})
		conn := dial(t, s.addr, grpc.WithUserAgent("me"))
		for i := range 3 { // metadata that changes is not taken for what was known
			ctx, cancel := metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true", "n", fmt.Sprint(i)), context.CancelFunc(func() {})
			if timed {
				ctx, cancel = context.WithTimeout(ctx, time.Hour)
			}
			_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{})
			require.NoError(t, err)
			cancel()
			got := <-seen
			require.Equal(t, []string{"true"}, metadata.ValueFromIncomingContext(got, "hasleader"))
			require.Equal(t, []string{fmt.Sprint(i)}, metadata.ValueFromIncomingContext(got, "n"))
			require.Equal(t, []string{s.addr}, metadata.ValueFromIncomingContext(got, ":authority"))
			require.Contains(t, metadata.ValueFromIncomingContext(got, "user-agent")[0], "me")
			method, _ := grpc.Method(got)
			require.Equal(t, rangePath, method)
			from, _ := peer.FromContext(got)
			require.NotEmpty(t, from.Addr)
			_, limited := got.Deadline()
			require.Equal(t, timed, limited)
			<-got.Done() // once it was answered
			require.ErrorIs(t, got.Err(), context.Canceled)
		}
		require.EqualValues(t, 3, intercepted.Load())
	}
}

// waiting has Range wait for the end of its context, which it then tells.
func waiting() (*service, chan context.Context, chan error) {
	began, ended := make(chan context.Context, 8), make(chan error, 8)
	return &service{handle: func(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
		// As handlers do: with a context of their own.
		own, cancel := context.WithCancel(ctx)
		defer cancel()
		began <- ctx
		<-own.Done()
		ended <- own.Err()
		return nil, own.Err()
	}}, began, ended
}

// TestACallEndsWithItsStream is F5.
func TestACallEndsWithItsStream(t *testing.T) {
	svc, began, ended := waiting()
	s := serve(t, config(), svc)
	kv := pb.NewKVClient(dial(t, s.addr))

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	_, err := kv.Range(ctx, &pb.RangeRequest{})
	require.Equal(t, codes.Canceled, status.Code(err))
	require.ErrorIs(t, <-ended, context.Canceled)

	c := connect(t, s.addr) // the deadline as only the server knows it
	id := c.get(1, "grpc-timeout: 10m")
	c.until(func() bool { return c.ended[id] })
	require.Equal(t, []string{"reset CANCEL"}, c.streams[id])
	require.ErrorIs(t, <-ended, context.DeadlineExceeded)
	<-began

	c.get(1)
	<-began
	require.NoError(t, c.nc.Close())
	require.ErrorIs(t, <-ended, context.Canceled)
}

// TestADeadlineThatBothKnow is F5, with a client that looks at its clock, too.
func TestADeadlineThatBothKnow(t *testing.T) {
	// On a busy machine a short time is over before the call has come.
	for limit, came := 50*time.Millisecond, false; !came; limit *= 2 {
		svc, began, ended := waiting()
		kv := pb.NewKVClient(dial(t, serve(t, config(), svc).addr))
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		answered := make(chan error, 1)
		go func() {
			_, err := kv.Range(ctx, &pb.RangeRequest{})
			answered <- err
		}()
		select {
		case handlers := <-began:
			came = true
			require.Equal(t, codes.DeadlineExceeded, status.Code(<-answered))
			require.ErrorIs(t, <-ended, handlers.Err()) // of the client's reset and the deadline, whichever was first
		case err := <-answered:
			require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		}
		cancel()
	}
}

// TestStopLeavesNothing is F7, with clients in every state; goleak sees the rest.
func TestStopLeavesNothing(t *testing.T) {
	svc, began, ended := waiting()
	s := serve(t, config(), svc)
	silent, err := net.Dial("tcp", s.addr)
	require.NoError(t, err)
	defer silent.Close()
	c := connect(t, s.addr)
	c.open(headers(rangePath), false)
	c.send(c.open(headers(watchPath), false), watch(1), false)
	c.get(1)
	<-began
	s.stop()
	require.Len(t, ended, 1) // Stop has waited for it
	c.untilEnd()
	late, err := net.Dial("tcp", s.addr)
	if err == nil {
		late.Close()
	}
	require.Error(t, err)
}

func TestStreamsBeyondTheLimitAreRefused(t *testing.T) {
	svc, began, _ := waiting()
	cfg := config()
	cfg.MaxStreams = 3
	c := connect(t, serve(t, cfg, svc, grpc.MaxConcurrentStreams(3)).addr)
	c.get(1)
	<-began
	c.send(c.open(headers(watchPath), false), watch(1), false)
	asked := c.open(headers(rangePath), false)
	refused := c.get(1)
	c.until(func() bool { return c.ended[refused] })
	require.Equal(t, []string{"reset REFUSED_STREAM"}, c.streams[refused])
	require.NoError(t, c.framer.WriteRSTStream(asked, 8))
	c.get(1)
	<-began
}

// underWay has a stream and a call under way, which is answered after end.
func underWay(t *testing.T) (s *served, c *client, stream, call uint32, end func()) {
	began, finish := make(chan struct{}), make(chan struct{})
	s = serve(t, config(), &service{handle: func(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
		close(began)
		<-finish
		return &pb.RangeResponse{}, nil
	}})
	end = sync.OnceFunc(func() { close(finish) })
	t.Cleanup(end)
	c = connect(t, s.addr)
	c.until(func() bool { return c.acks == 1 }) // grpc-go drops a connection that it has not begun with
	stream = c.open(headers(watchPath), false)
	call = c.get(1)
	<-began
	return s, c, stream, call, end
}

// sentAway reads until the server has told the client to leave, and up to which call it answers.
func (c *client) sentAway() {
	t := c.t
	c.until(func() bool { return c.gone != "" })
	require.Equal(t, "NO_ERROR graceful_stop", c.gone)
	for c.pongs == 0 { // its question whether everything was seen
		require.NoError(t, c.read())
	}
	require.NoError(t, c.framer.WritePing(true, [8]byte{1, 6, 1, 8, 0, 3, 3, 9}))
	c.gone = ""
	c.until(func() bool { return c.gone != "" })
}

// TestLeaveWaitsForAnswers has the server leave while a call and a stream are under way. The call is answered, and the
// stream is left to Stop.
func TestLeaveWaitsForAnswers(t *testing.T) {
	s, c, _, id, end := underWay(t)
	left := make(chan struct{})
	go func() {
		s.Leave(t.Context())
		close(left)
	}()
	c.sentAway()
	select {
	case <-left:
		require.Fail(t, "a call is under way")
	default:
	}
	end()
	<-left
	c.until(func() bool { return c.ended[id] })
	require.Contains(t, c.streams[id], "grpc-status: 0")
}

// TestLeaveIsBounded has a client that does not answer, so that it is not known what it has seen.
func TestLeaveIsBounded(t *testing.T) {
	s := serve(t, config(), &service{})
	c := connect(t, s.addr)
	c.until(func() bool { return c.acks == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		s.Leave(ctx)
		close(left)
	}()
	c.until(func() bool { return c.gone != "" })
	cancel()
	<-left
}

// TestLeaveDoesNotWaitForHandshakes has a client that has not said all that a connection begins with. grpc-go would tell
// no client anything before that.
func TestLeaveDoesNotWaitForHandshakes(t *testing.T) {
	s := serve(t, config(), &service{})
	c := connect(t, s.addr)
	c.until(func() bool { return c.acks == 1 })
	slow, err := net.Dial("tcp", s.addr)
	require.NoError(t, err)
	defer slow.Close()
	_, err = slow.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	_, err = slow.Read(make([]byte, 1)) // grpc-go waits for the rest
	require.NoError(t, err)
	left := make(chan struct{})
	go func() {
		s.Leave(t.Context())
		close(left)
	}()
	c.sentAway()
	<-left
	// The slow client's connection ends. If what it sent has not been read yet, that is a reset.
	if _, err = io.Copy(io.Discard, slow); err != nil {
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
}

// TestAConnectionHasBegunBeforeGRPCHearsIt keeps Leave from cutting off a client that was just told that it may call. Nobody
// reads what goes to grpc-go here.
func TestAConnectionHasBegunBeforeGRPCHearsIt(t *testing.T) {
	s := serve(t, config(), &service{})
	ours, theirs := net.Pipe()
	c := newConn(s.Server, ours)
	defer c.close()
	go func() { _ = http2.NewFramer(theirs, nil).WriteSettings() }()
	require.False(t, c.hasBegun())
	require.NoError(t, c.frame(true))
	require.True(t, c.hasBegun())
}

// TestAGracefulEndWaitsForWhatIsUnderWay has grpc-go end the connection while a call and a stream are under way here.
func TestAGracefulEndWaitsForWhatIsUnderWay(t *testing.T) {
	s, c, stream, id, end := underWay(t)
	go s.behind.GracefulStop()
	c.sentAway()
	ignored := c.get(1)
	end()
	c.until(func() bool { return c.ended[id] })
	c.send(stream, watch(10), true)
	for c.read() == nil {
	}
	require.Contains(t, c.streams[id], "grpc-status: 0")
	require.Contains(t, c.streams[stream], "grpc-status: 0")
	require.Empty(t, c.streams[ignored])
}
