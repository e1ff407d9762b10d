package rpcfront

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// started are calls of Range that were, for the test to answer.
type started struct {
	calls chan *startedCall
}

type startedCall struct {
	Call
	req   *pb.RangeRequest
	once  sync.Once
	ended chan error // with what
}

// Abandon implements Started.
func (s *startedCall) Abandon(cause error) { s.end(nil, cause) }

func (s *startedCall) end(resp *pb.RangeResponse, err error) { s.AnswerWithin(0, resp, err) }

// Answer and AnswerWithin are Call's, once: a call may be abandoned that has just been answered.
func (s *startedCall) Answer(resp any, err error) { s.AnswerWithin(0, resp, err) }

func (s *startedCall) AnswerWithin(distance time.Duration, resp any, err error) {
	s.once.Do(func() {
		s.ended <- err
		s.Call.AnswerWithin(distance, resp, err)
	})
}

// starting has Range started, unless the key is "left". The key "now" is answered at once.
func starting(cfg Config) (Config, *started) {
	s := &started{calls: make(chan *startedCall, 10_000)}
	cfg.Starters = map[string]Starter{rangePath: func(call Call, request []byte) (Started, bool) {
		c := &startedCall{Call: call, req: &pb.RangeRequest{}, ended: make(chan error, 1)}
		if err := proto.Unmarshal(request, c.req); err != nil {
			return nil, false
		}
		switch string(c.req.Key) {
		case "left":
			return nil, false
		case "now":
			c.end(&pb.RangeResponse{Count: 1}, nil)
			return nil, true
		}
		s.calls <- c
		return c, true
	}}
	return cfg, s
}

// TestStartedCallsAreAnsweredLater is F9: thousands of calls wait, are answered by whoever has the answers, and cost
// no goroutines.
func TestStartedCallsAreAnsweredLater(t *testing.T) {
	cfg, calls := starting(config())
	s := serve(t, cfg, &service{})
	c := connect(t, s.addr)
	c.settle()
	goroutines := runtime.NumGoroutine()
	const n = 3000
	var ids []uint32
	for i := range n {
		id := c.open(headers(rangePath), false)
		c.send(id, message(&pb.RangeRequest{Key: []byte("k"), Limit: int64(i)}), true)
		ids = append(ids, id)
	}
	var held []*startedCall
	for range n {
		held = append(held, <-calls.calls)
	}
	require.Less(t, runtime.NumGoroutine()-goroutines, n/10)
	for i, call := range held {
		require.EqualValues(t, i, call.req.Limit, "they begin in the order in which they came")
		if i%2 == 0 {
			call.end(&pb.RangeResponse{Count: int64(i)}, nil)
		} else {
			call.end(nil, status.Error(codes.FailedPrecondition, "odd"))
		}
	}
	for i, id := range ids {
		c.until(func() bool { return c.ended[id] })
		if i%2 == 0 {
			require.Contains(t, c.streams[id], "grpc-status: 0")
		} else {
			require.Contains(t, c.streams[id], "grpc-message: odd")
		}
		require.ErrorIs(t, held[i].Err(), context.Canceled) // F5
	}
	front := s.conns(t)[0]
	front.mu.Lock()
	defer front.mu.Unlock()
	require.Empty(t, front.calls)
}

// conns are the server's connections.
func (s *served) conns(t *testing.T) (all []*conn) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.mu.conns {
		all = append(all, c)
	}
	return all
}

// TestAnswersThatMayWait is F9: what may wait for a moment that is far off leaves with whatever else does, and what waits for a near
// one leaves by itself.
func TestAnswersThatMayWait(t *testing.T) {
	const far = 1 << 62
	cfg, calls := starting(config())
	s := serve(t, cfg, &service{})
	c := connect(t, s.addr)
	c.until(func() bool { return c.acks == 1 })
	front := s.conns(t)[0]
	front.mu.Lock()
	for front.out.writing { // who wrote what was read would look for more
		front.changed.Wait()
	}
	front.mu.Unlock()
	wait := []uint32{c.get(1), c.get(1), c.get(1)}
	for range wait {
		(<-calls.calls).AnswerWithin(far, &pb.RangeResponse{}, nil)
	}
	front.mu.Lock()
	held := len(front.ready)
	front.mu.Unlock()
	require.Equal(t, len(wait), held)
	now := c.get(1)
	(<-calls.calls).Answer(&pb.RangeResponse{}, nil)
	for _, id := range append(wait, now) {
		c.until(func() bool { return c.ended[id] })
		require.Contains(t, c.streams[id], "grpc-status: 0")
	}

	d := connect(t, s.addr)
	d.settle()
	for range 2 {
		soon := d.get(1)
		(<-calls.calls).AnswerWithin(time.Millisecond, &pb.RangeResponse{}, nil)
		d.until(func() bool { return d.ended[soon] })
	}
}

// TestStopWithAnswersThatWait is F7.
func TestStopWithAnswersThatWait(t *testing.T) {
	cfg, calls := starting(config())
	s := serve(t, cfg, &service{})
	c := connect(t, s.addr)
	for waits := false; !waits; { // who writes just then takes an answer along
		c.get(1)
		(<-calls.calls).AnswerWithin(1<<62, &pb.RangeResponse{}, nil)
		front := s.conns(t)[0]
		front.mu.Lock()
		waits = front.awaits
		front.mu.Unlock()
	}
	s.stop()
	require.False(t, s.moments.mu.timer.Stop(), "it has been stopped")
}

func TestStartedCallsOfGRPCsClient(t *testing.T) {
	cfg, calls := starting(config())
	s := serve(t, cfg, &service{})
	kv := pb.NewKVClient(dial(t, s.addr))
	resp, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("now")})
	require.NoError(t, err)
	require.EqualValues(t, 1, resp.Count)
	// What is not begun, and what grpc-go answers, is answered by the service's method.
	for _, key := range [][]byte{[]byte("left"), make([]byte, 50_000)} {
		resp, err = kv.Range(t.Context(), &pb.RangeRequest{Key: key})
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1)
	}
	require.Empty(t, calls.calls)
}

// TestStartedCallsAreAbandoned is F5: by a reset, at the deadline, with the connection, and by Stop (F7).
func TestStartedCallsAreAbandoned(t *testing.T) {
	cfg, calls := starting(config())
	s := serve(t, cfg, &service{})
	abandoned := func(call *startedCall, why error) {
		t.Helper()
		require.ErrorIs(t, <-call.ended, why)
		require.ErrorIs(t, call.Err(), why)
	}
	c := connect(t, s.addr)
	reset := c.get(1)
	call := <-calls.calls
	require.NoError(t, c.framer.WriteRSTStream(reset, http2.ErrCodeCancel))
	abandoned(call, context.Canceled)

	late := c.get(1, "grpc-timeout: +1m")
	abandoned(<-calls.calls, context.DeadlineExceeded)
	c.until(func() bool { return c.ended[late] })

	c.get(1)
	call = <-calls.calls
	require.NoError(t, c.nc.Close())
	abandoned(call, context.Canceled)

	connect(t, s.addr).get(1)
	call = <-calls.calls
	s.stop()
	require.NotEmpty(t, call.ended)
	abandoned(call, context.Canceled)
}
