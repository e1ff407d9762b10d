package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// seen is a Revisions.
type seen struct{ atomic.Int64 }

func (s *seen) Seen() shard.Revision { return shard.Revision(s.Load()) }

func (s *seen) Observe(rev shard.Revision) {
	for old := s.Load(); int64(rev) > old && !s.CompareAndSwap(old, int64(rev)); old = s.Load() {
	}
}

// fakeExecutor answers by its functions, and by default at once.
type fakeExecutor struct {
	write func(req *router.Request, end router.Ender)
	read  func(ctx context.Context, req *router.Request) (*router.Reply, error)
}

func (f *fakeExecutor) Write(req *router.Request, end router.Ender) {
	if f.write != nil {
		f.write(req, end)
		return
	}
	end.End(&router.Reply{Rev: shard.Revision(req.Shard), Message: &pb.PutResponse{}}, nil)
}

func (f *fakeExecutor) Read(ctx context.Context, req *router.Request) (*router.Reply, error) {
	if f.read != nil {
		return f.read(ctx, req)
	}
	return &router.Reply{Rev: shard.Revision(req.Shard)}, nil
}

func (f *fakeExecutor) StartRead(*router.Request, func(*router.Reply, error)) bool { return false }

// exchange is a node that serves Exchange and Subscribe and nothing else.
type exchange struct {
	routerpb.UnimplementedPeerServer
	exec      Executor
	from      *fakePublisher // nil while the node is starting
	revisions *seen
	streams   atomic.Int32
	ended     atomic.Int32
	leaving   context.Context // nil: never
}

func (e *exchange) Exchange(stream grpc.BidiStreamingServer[routerpb.Frame, routerpb.Frame]) error {
	e.streams.Add(1)
	defer e.ended.Add(1)
	return Serve(cmp.Or(e.leaving, context.Background()), stream, e.exec, e.revisions)
}

func (e *exchange) Subscribe(req *routerpb.SubscribeRequest, stream grpc.ServerStreamingServer[routerpb.ChangesFrame]) error {
	if e.from == nil {
		return status.Error(codes.Unavailable, "node is starting")
	}
	return ServeSubscribe(req, stream, e.from, e.revisions)
}

// pair is a client and the node that it talks to.
type pair struct {
	client   *Client
	mine     *seen
	node     *exchange
	server   *grpc.Server
	listener atomic.Pointer[bufconn.Listener]
}

func newPair(t *testing.T, exec Executor) *pair {
	p := &pair{mine: &seen{}, node: &exchange{exec: exec, revisions: &seen{}}}
	p.serve(t)
	conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.listener.Load().DialContext(ctx) }))
	require.NoError(t, err)
	p.client = NewClient(conn, p.mine)
	t.Cleanup(func() {
		require.NoError(t, p.client.Close())
		p.server.Stop()
	})
	return p
}

func (p *pair) serve(t *testing.T) {
	listener := bufconn.Listen(1 << 20)
	p.listener.Store(listener)
	p.server = grpc.NewServer(grpc.ForceServerCodecV2(Codec()))
	routerpb.RegisterPeerServer(p.server, p.node)
	served := make(chan struct{})
	server := p.server
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
}

func write(id shard.ID) *router.Request {
	return &router.Request{Shard: id, Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: shardpb.Kind_PUT}}
}

func probe(id shard.ID) *router.Request { return &router.Request{Shard: id, Op: routerpb.Op_OP_PROBE} }

func TestManyRequestsOneStream(t *testing.T) {
	p := newPair(t, &fakeExecutor{})
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Go(func() {
			req := write(shard.ID(i))
			if i%2 == 0 {
				req = probe(shard.ID(i))
			}
			reply, err := p.client.Send(t.Context(), req)
			require.NoError(t, err)
			require.Equal(t, shard.Revision(i), reply.Rev, "a reply that belongs to another request")
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), p.node.streams.Load())
}

// N2, both ways.
func TestRevisionsTravel(t *testing.T) {
	p := newPair(t, &fakeExecutor{})
	p.mine.Observe(1000)
	p.node.revisions.Observe(5)
	_, err := p.client.Send(t.Context(), write(2))
	require.NoError(t, err)
	require.Equal(t, shard.Revision(1000), p.node.revisions.Seen())
	p.node.revisions.Observe(2000)
	_, err = p.client.Send(t.Context(), write(2))
	require.NoError(t, err)
	require.Equal(t, shard.Revision(2000), p.mine.Seen())
}

// A node that is about to stop answers what came by a stream. What comes later goes by another one, so that nothing is
// under way when the node ends.
func TestAStreamIsLeft(t *testing.T) {
	ends := make(chan router.Ender, 1)
	p := newPair(t, &fakeExecutor{write: func(req *router.Request, end router.Ender) {
		if req.Shard == 7 {
			ends <- end
			return
		}
		end.End(&router.Reply{Message: &pb.PutResponse{}}, nil)
	}})
	ctx, leave := context.WithCancel(t.Context())
	p.node.leaving = ctx
	errs := make(chan error, 1)
	go func() { _, err := p.client.Send(t.Context(), write(7)); errs <- err }()
	end := <-ends
	old, err := p.client.open()
	require.NoError(t, err)
	old.state.silent.Store(true)
	leave()
	require.Eventually(t, old.retired.Load, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return !old.state.silent.Load() }, 10*time.Second, time.Millisecond, "it has just said something")
	_, err = p.client.Send(t.Context(), write(8))
	require.NoError(t, err)
	select {
	case <-old.done:
		t.Fatal("a call is under way on it")
	default:
	}
	end.End(&router.Reply{Message: &pb.PutResponse{}}, nil)
	require.NoError(t, <-errs)
	<-old.done

	// A stream without calls ends at once, and so does one that is opened while the node is leaving.
	require.Eventually(t, func() bool { return p.node.ended.Load() == p.node.streams.Load() }, 10*time.Second, time.Millisecond)
	require.GreaterOrEqual(t, p.node.streams.Load(), int32(2))
}

// stuck is an executor that takes requests and never answers.
type stuck struct{ arrived chan struct{} }

func (s *stuck) Write(*router.Request, router.Ender) { s.arrived <- struct{}{} }

func (s *stuck) Read(ctx context.Context, req *router.Request) (*router.Reply, error) {
	if req.Shard != 0 { // no ping
		s.arrived <- struct{}{}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *stuck) StartRead(*router.Request, func(*router.Reply, error)) bool { return false }

// N1: what was sent is unknown when the stream ends; a read can always be sent again.
func TestStreamLost(t *testing.T) {
	s := &stuck{arrived: make(chan struct{}, 2)}
	p := newPair(t, s)
	errs := make(chan error, 2)
	reads := make(chan error, 1)
	go func() { _, err := p.client.Send(t.Context(), write(2)); errs <- err }()
	go func() { _, err := p.client.Send(t.Context(), probe(2)); reads <- err }()
	<-s.arrived
	<-s.arrived
	p.server.Stop()
	require.ErrorIs(t, <-errs, shard.ErrUnknownOutcome)
	err := <-reads
	require.ErrorIs(t, err, shard.ErrUnavailable)
	require.NotErrorIs(t, err, shard.ErrUnknownOutcome)

	// The node comes back: a new stream, on demand.
	p.node.exec = &fakeExecutor{}
	p.serve(t)
	require.Eventually(t, func() bool {
		_, err := p.client.Send(t.Context(), write(2))
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
}

// N1: what was never sent is certainly not applied.
func TestNeverSent(t *testing.T) {
	dial := func(dialer func(context.Context, string) (net.Conn, error)) *Client {
		conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dialer))
		require.NoError(t, err)
		c := NewClient(conn, &seen{})
		t.Cleanup(func() { _ = c.Close() }) // a second Close is an error of gRPC's, and harmless
		return c
	}
	certain := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, shard.ErrUnavailable)
		require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
	}
	refused := dial(func(context.Context, string) (net.Conn, error) { return nil, errors.New("refused") })
	_, err := refused.Send(t.Context(), write(2))
	certain(err)

	silent := dial(func(ctx context.Context, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = silent.Send(ctx, write(2))
	certain(err)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	closed := dial(func(context.Context, string) (net.Conn, error) { return nil, errors.New("refused") })
	require.NoError(t, closed.Close())
	_, err = closed.Send(t.Context(), write(2))
	certain(err)
}

// N1: a caller that leaves does not know either.
func TestCallerLeaves(t *testing.T) {
	s := &stuck{arrived: make(chan struct{}, 2)}
	p := newPair(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() { _, err := p.client.Send(ctx, write(2)); errs <- err }()
	<-s.arrived
	cancel()
	err := <-errs
	require.ErrorIs(t, err, shard.ErrUnknownOutcome)
	require.ErrorIs(t, err, context.Canceled)
	for range p.client.mu.link.mu.calls.all() {
		t.Error("something is kept of who has left")
	}
}

// N1: nor does one whose patience ends.
func TestPatienceEnds(t *testing.T) {
	e := &stuck{arrived: make(chan struct{}, 1)}
	p := newPair(t, e)
	req, over := write(1), make(chan struct{})
	req.GiveUp = over
	got := make(chan error, 1)
	go func() {
		_, err := p.client.Send(t.Context(), req)
		got <- err
	}()
	<-e.arrived
	close(over)
	err := <-got
	require.ErrorIs(t, err, shard.ErrUnknownOutcome)
	require.ErrorIs(t, err, router.ErrRequestTimeout)
}

// A node that owes answers and gives none is silent, also when nobody waits as long, until it gives one.
func TestSilence(t *testing.T) {
	arrived, awake := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p := newPair(t, &fakeExecutor{read: func(ctx context.Context, req *router.Request) (*router.Reply, error) {
		once.Do(func() { close(arrived) })
		select {
		case <-awake:
		case <-ctx.Done():
		}
		return &router.Reply{}, nil
	}})
	require.False(t, p.client.Silent())
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := p.client.Send(ctx, probe(1))
		got <- err
	}()
	<-arrived
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)
	require.Eventually(t, p.client.Silent, time.Minute, time.Millisecond)
	close(awake)
	require.Eventually(t, func() bool { return !p.client.Silent() }, time.Minute, time.Millisecond)
}

// N6: a node whose answers take long, but which answers pings, is waited for, also by what is left of a stream whose token it has refused.
func TestSlowIsNotSilent(t *testing.T) {
	for _, retired := range []bool{false, true} {
		t.Run(fmt.Sprintf("retired=%v", retired), func(t *testing.T) { testSlowIsNotSilent(t, retired) })
	}
}

func testSlowIsNotSilent(t *testing.T, retired bool) {
	pinged := make(chan struct{}, 2*silence)
	arrived, ready := make(chan struct{}), make(chan struct{})
	p := newPair(t, &fakeExecutor{read: func(ctx context.Context, req *router.Request) (*router.Reply, error) {
		if req.Shard == 0 {
			pinged <- struct{}{}
			return nil, &shard.NoReplicaError{}
		}
		close(arrived)
		<-ready
		return &router.Reply{Rev: 7}, nil
	}})
	got := make(chan *router.Reply, 1)
	go func() {
		reply, err := p.client.Send(t.Context(), probe(1))
		if err != nil {
			t.Error(err)
		}
		got <- reply
	}()
	<-arrived
	l := p.client.mu.link
	l.retired.Store(retired)
	for range 2 * silence {
		l.look()
		require.Eventually(t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.mu.pings == 0
		}, time.Minute, time.Millisecond)
		require.False(t, p.client.Silent())
	}
	require.NotEmpty(t, pinged)
	close(ready)
	require.Equal(t, shard.Revision(7), (<-got).Rev)
}

// N6: whoever may ask another node does not wait for a silent one; a write that was sent does.
func TestASilentNodeIsLeft(t *testing.T) {
	l := newLink(peerBounds(), newFrameBuffers(), &seen{}, &state{}, func() {})
	begin := func(req *router.Request) chan answer {
		outcome := make(chan answer, 1)
		c := &call{asked: req, link: l, answers: outcome}
		r := request{asked: req}
		require.NoError(t, r.prepare())
		require.NoError(t, l.enqueue(c, &r))
		return outcome
	}
	command := func(kind shardpb.Kind) *router.Request {
		return &router.Request{Shard: 2, Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: kind}}
	}
	read, put, grant, closing := begin(probe(2)), begin(write(2)), begin(command(shardpb.Kind_LEASE_GRANT)), begin(command(shardpb.Kind_CLOSE))
	require.Len(t, l.mu.out.next().parts, 4)
	waiting := begin(write(2))
	for range silence {
		l.look()
		require.False(t, l.state.silent.Load())
	}
	require.Empty(t, read, "not yet")
	late := begin(probe(2))
	l.look()
	require.True(t, l.state.silent.Load())

	certain := func(outcome chan answer) {
		t.Helper()
		err := (<-outcome).err
		require.ErrorIs(t, err, shard.ErrUnavailable)
		require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
	}
	certain(read)
	certain(waiting)
	require.ErrorIs(t, (<-closing).err, shard.ErrUnknownOutcome, "its sender repeats it all the same")
	require.Empty(t, late, "it may be what the node awakes by")
	l.look()
	certain(late)
	for l.mu.age <= patience {
		require.Empty(t, put, "it may have been applied")
		require.Empty(t, grant, "it may have been applied")
		l.look()
	}
	require.ErrorIs(t, (<-put).err, shard.ErrUnknownOutcome)
	require.ErrorIs(t, (<-grant).err, shard.ErrUnknownOutcome)
}

func TestQueueIsBounded(t *testing.T) {
	enqueue := func(l *link, bytes int) (*call, chan answer, error) {
		answers := make(chan answer, 1)
		c := &call{asked: &router.Request{Op: routerpb.Op_OP_WRITE, Put: &pb.PutRequest{Value: make([]byte, bytes)}}, link: l, answers: answers}
		r := request{asked: c.asked}
		require.NoError(t, r.prepare())
		return c, answers, l.enqueue(c, &r)
	}
	certain := func(outcome chan answer) {
		err := (<-outcome).err
		require.ErrorIs(t, err, shard.ErrUnavailable, "it was not sent")
		require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
	}
	l := newLink(peerBounds(), newFrameBuffers(), &seen{}, &state{}, func() {})
	var seventh *call
	var outcome chan answer
	for i := range queueRequestsMax {
		c, answers, err := enqueue(l, 0)
		require.NoError(t, err)
		if i == 6 {
			seventh, outcome = c, answers
		}
	}
	_, _, err := enqueue(l, 0)
	require.ErrorIs(t, err, shard.ErrOverloaded)
	seventh.Abandon(context.Canceled)
	certain(outcome)
	_, _, err = enqueue(l, 0)
	require.NoError(t, err, "who leaves makes room")

	l = newLink(peerBounds(), newFrameBuffers(), &seen{}, &state{}, func() {})
	large, outcome, err := enqueue(l, queueBytesMax+1)
	require.NoError(t, err)
	_, _, err = enqueue(l, 0)
	require.ErrorIs(t, err, shard.ErrOverloaded)
	large.Abandon(context.Canceled)
	certain(outcome)
	_, _, err = enqueue(l, 0)
	require.NoError(t, err)
}

// A reply to a call that was abandoned is no reply to the one that has its place now.
func TestLateReplyIsNobodys(t *testing.T) {
	var under calls
	first, second := &call{}, &call{}
	require.True(t, under.add(first))
	late := first.id
	require.Same(t, first, under.take(late))
	require.True(t, under.add(second))
	require.Nil(t, under.take(late))
	require.Nil(t, under.take(late+1), "a place that was never given away")
	require.Same(t, second, under.take(second.id))
	require.Nil(t, under.take(second.id), "it has its reply")
	for i := range 1 << placeBits {
		require.True(t, under.add(&call{}), i)
	}
	require.False(t, under.add(&call{}))
}

// Large requests at once do not make a frame that the node refuses: gRPC's own limit
// here is 4 MiB.
func TestBurstOfLargeRequests(t *testing.T) {
	p := newPair(t, &fakeExecutor{})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			req := write(shard.ID(i))
			req.Command.Body = make([]byte, 1<<20)
			_, err := p.client.Send(t.Context(), req)
			require.NoError(t, err)
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), p.node.streams.Load())
}

// fakeStream is the server's end of a stream whose client reads nothing until it is
// told to.
type fakeStream struct {
	grpc.ServerStream
	ctx    context.Context
	frames chan *routerpb.Frame
	taken  atomic.Int32
	open   chan struct{}
	sent   atomic.Int32
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) RecvMsg(m any) error {
	select {
	case f, ok := <-s.frames:
		if !ok {
			return io.EOF
		}
		s.taken.Add(1)
		data, err := f.MarshalVT()
		if err != nil {
			return err
		}
		return Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, m)
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *fakeStream) SendMsg(m any) error {
	select {
	case <-s.open:
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	s.sent.Add(int32(m.(*frame).messages))
	return nil
}

// N3: who does not take its replies is not read from any more.
func TestSlowReaderOfReplies(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const (
		most   = repliesBytesMax>>20 + 2
		frames = 2 * most
	)
	s := &fakeStream{ctx: ctx, frames: make(chan *routerpb.Frame, frames), open: make(chan struct{})}
	for i := range frames {
		s.frames <- &routerpb.Frame{Requests: []*routerpb.Request{{Id: uint64(i), Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{}}}}
	}
	value := make([]byte, 1<<20)
	exec := &fakeExecutor{write: func(_ *router.Request, end router.Ender) {
		end.End(&router.Reply{Message: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Value: value}}}}, nil)
	}}
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, s, exec, &seen{}) }()

	require.Eventually(t, func() bool { return s.taken.Load() >= most-4 }, 10*time.Second, time.Millisecond)
	require.Never(t, func() bool { return s.taken.Load() > most }, 50*time.Millisecond, time.Millisecond)
	close(s.open)
	require.Eventually(t, func() bool { return s.sent.Load() == frames }, 10*time.Second, time.Millisecond)
	close(s.frames)
	require.ErrorIs(t, <-ended, io.EOF)
}

// The node closes its store after its streams: no read may outlive Serve.
func TestServeWaitsForItsReads(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &fakeStream{ctx: ctx, frames: make(chan *routerpb.Frame, 1), open: make(chan struct{})}
	s.frames <- &routerpb.Frame{Requests: []*routerpb.Request{{Op: routerpb.Op_OP_PROBE}, {Op: routerpb.Op_OP_PROBE}, {Op: 99}}}
	var running atomic.Int32
	arrived := make(chan struct{}, 2)
	exec := &fakeExecutor{read: func(ctx context.Context, _ *router.Request) (*router.Reply, error) {
		running.Add(1)
		defer running.Add(-1)
		arrived <- struct{}{}
		<-ctx.Done()
		return nil, fmt.Errorf("ended: %w", ctx.Err())
	}}
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, s, exec, &seen{}) }()
	<-arrived
	<-arrived
	cancel()
	<-ended
	require.Zero(t, running.Load())
}

// gRPC takes a frame before it has sent it. What replies in it hold of the node's memory they hold until nobody uses the
// frame's any more, or the stream has ended.
func TestRoomIsHeldUntilTheFrameIsSent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &grpcStream{fakeStream: fakeStream{ctx: ctx, frames: make(chan *routerpb.Frame, 2)}, given: make(chan mem.BufferSlice, 2)}
	var left atomic.Int32
	exec := &fakeExecutor{read: func(context.Context, *router.Request) (*router.Reply, error) {
		answer := &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Value: make([]byte, 1<<20)}}}
		return &router.Reply{Message: answer, Sent: func() { left.Add(1) }}, nil
	}}
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, s, exec, &seen{}) }()
	ask := &routerpb.Frame{Requests: []*routerpb.Request{{Op: routerpb.Op_OP_FETCH}}}
	s.frames <- ask
	first := <-s.given
	s.frames <- ask
	<-s.given // gRPC has returned from sending the first
	require.Zero(t, left.Load())
	first.Free()
	require.Equal(t, int32(1), left.Load())
	cancel()
	<-ended
	require.Eventually(t, func() bool { return left.Load() == 2 }, 10*time.Second, time.Millisecond)
}

// grpcStream takes frames as gRPC does.
type grpcStream struct {
	fakeStream
	given chan mem.BufferSlice
}

func (s *grpcStream) SendMsg(m any) error {
	data, err := Codec().Marshal(m)
	s.given <- data
	return err
}
