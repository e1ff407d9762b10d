package peer

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Executor carries out requests on this node; exec.Executor is one.
type Executor interface {
	// Write reports the outcome to end once. end must not block.
	Write(req *router.Request, end router.Ender)
	router.Reader
	// Read returns soon after the request's shard has answered or failed to, without a deadline of
	// its own.
	Read(ctx context.Context, req *router.Request) (*router.Reply, error)
}

// Holder is an Executor whose replies take room until they were sent.
type Holder interface {
	// Hold counts a large reply that has no room yet: nobody knew that it would be large. sent returns its room.
	Hold(bytes int) (sent func())
}

// largeReply is the size from which on a reply is held.
const largeReply = 32 << 10

// readsMax bounds the reads that one stream has in flight; the next frame waits.
const readsMax = 1024

// serving is a stream being served.
type serving struct {
	ctx   context.Context
	exec  Executor
	hold  Holder // nil: replies are not counted
	out   *replies
	reads chan struct{} // holds one element for each read in flight, readsMax at most
	// The node closes its store once its streams have ended: no read may continue then.
	work sync.WaitGroup
}

// Serve carries out the requests of a stream until it ends. Once leaving ends, the client is told to make no further ones
// on it; it ends the stream when it has all answers.
func Serve(leaving context.Context, stream grpc.ServerStream, exec Executor, revisions Revisions) error {
	ctx, cancel := context.WithCancel(stream.Context())
	s := &serving{ctx: ctx, exec: exec, out: newReplies(), reads: make(chan struct{}, readsMax)}
	s.hold, _ = exec.(Holder)
	s.work.Go(func() {
		defer cancel()
		s.out.send(ctx, stream, revisions)
	})
	defer context.AfterFunc(leaving, s.leave)()
	defer s.out.end() // no read is under way any more
	defer s.work.Wait()
	defer cancel()
	for {
		if err := s.out.wait(ctx); err != nil {
			return err
		}
		in := incoming{keep: true}
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		if err := s.carryOut(in.data, revisions); err != nil {
			return err
		}
	}
}

// leave tells the client to make further requests elsewhere.
func (s *serving) leave() {
	var p reply
	p.prepare(noRequest, nil, shard.ErrStopped)
	s.out.add(&p, nil)
}

// carryOut starts the requests of a frame.
func (s *serving) carryOut(frame []byte, revisions Revisions) error {
	n := 0
	highest, err := parts(frame, func(field protowire.Number, _ []byte) error {
		if field == frameRequests {
			n++
		}
		return nil
	})
	if err != nil {
		return status.Errorf(codes.Internal, "flotilla: %v", err)
	}
	if n > frameMessagesMax {
		return status.Errorf(codes.InvalidArgument, "flotilla: a frame has %d requests, the most is %d", n, frameMessagesMax)
	}
	revisions.Observe(highest)
	var block []served
	_, err = parts(frame, func(field protowire.Number, data []byte) error {
		if field != frameRequests {
			return nil
		}
		if len(block) == 0 {
			block = make([]served, min(n, servedBlock))
			n -= len(block)
		}
		r := &block[0]
		block = block[1:]
		r.serving = s
		return r.begin(data)
	})
	return err
}

// servedBlock is the number of requests of a frame that share an allocation.
const servedBlock = 64

// served is a request being carried out.
type served struct {
	*serving
	id      uint64
	request router.Request
	command shardpb.Command // the request's command, if it is a write that has one
}

// begin starts the request, for a read possibly after waiting for one of readsMax places. An error
// ends the stream.
func (r *served) begin(data []byte) (err error) {
	if r.id, err = decodeRequest(data, &r.request, &r.command); err != nil {
		if r.id == noRequest { // a reply to that would mean something else
			return err
		}
		r.End(nil, err)
		return nil
	}
	if r.request.Op == routerpb.Op_OP_WRITE {
		r.exec.Write(&r.request, r)
		return nil
	}
	select {
	case r.reads <- struct{}{}:
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	r.work.Add(1)
	if !r.exec.StartRead(&r.request, r.endRead) {
		go func() { r.endRead(r.exec.Read(r.ctx, &r.request)) }() // it ends soon after the shard has answered or failed
	}
	return nil
}

func (r *served) endRead(reply *router.Reply, err error) {
	r.End(reply, err)
	<-r.reads
	r.work.Done()
}

// End implements router.Ender.
func (r *served) End(answer *router.Reply, err error) {
	var p reply
	p.prepare(r.id, answer, err)
	var sent func()
	if answer != nil {
		sent = answer.Sent
	}
	if sent == nil && r.hold != nil && p.bytes >= largeReply {
		sent = r.hold.Hold(p.bytes)
	}
	r.out.add(&p, sent)
}

// repliesBytesMax bounds the replies that a client has not read. Beyond it the stream is not read
// either, so that its client's queue fills up instead (N3).
const repliesBytesMax = 32 << 20

// replies wait to be sent. Adding never blocks, because Update adds the replies of writes; the
// reader of the stream waits for room.
type replies struct {
	buffers *frameBuffers
	kick    chan struct{} // there is something to send
	room    chan struct{} // something was sent
	mu      struct {
		sync.Mutex
		frames []*frame // in order. Replies are added to the last one
		bytes  int      // of all frames, and of the one that is being sent
		ended  bool     // nothing is sent any more
	}
}

func newReplies() *replies {
	return &replies{buffers: newFrameBuffers(), kick: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// sent, unless it is nil, is called when nobody uses the reply's encoding any more, or when the stream has ended.
func (r *replies) add(p *reply, sent func()) {
	r.mu.Lock()
	if r.mu.ended { // a write outlives its stream
		r.mu.Unlock()
		if sent != nil {
			sent()
		}
		return
	}
	var f *frame
	if n := len(r.mu.frames); n > 0 {
		f = r.mu.frames[n-1]
	}
	if f == nil || f.full(p.bytes+idBytesMax, frameBytesMax) {
		fresh := r.buffers.frame()
		f = &fresh
		r.mu.frames = append(r.mu.frames, f)
	}
	before := len(*f.buf)
	f.grow(p.bytes + idBytesMax)
	*f.buf = p.append(*f.buf)
	f.messages++
	if sent != nil {
		f.hold(sent)
	}
	r.mu.bytes += len(*f.buf) - before
	r.mu.Unlock()
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// wait waits until there is room for more replies.
func (r *replies) wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		full := r.mu.bytes > repliesBytesMax
		r.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-r.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take returns the next frame; nil if nothing waits.
func (r *replies) take() *frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.frames) == 0 {
		return nil
	}
	f := r.mu.frames[0]
	r.mu.frames = slices.Delete(r.mu.frames, 0, 1)
	return f
}

// sent frees the room that sent replies took.
func (r *replies) sent(bytes int) {
	r.mu.Lock()
	r.mu.bytes -= bytes
	r.mu.Unlock()
	select {
	case r.room <- struct{}{}:
	default:
	}
}

// end drops what was not sent, and what comes later.
func (r *replies) end() {
	r.mu.Lock()
	r.mu.ended = true
	r.mu.Unlock()
	for f := r.take(); f != nil; f = r.take() {
		f.free()
	}
}

func (r *replies) send(ctx context.Context, stream grpc.ServerStream, revisions Revisions) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		}
		runtime.Gosched() // a batch that was applied has many replies; let them join this frame
		for f := r.take(); f != nil; f = r.take() {
			bytes := len(*f.buf)
			f.close(revisions.Seen())
			if f.held != nil {
				f.held.until(ctx)
			}
			err := stream.SendMsg(f)
			f.free()
			if err != nil {
				return
			}
			r.sent(bytes)
		}
	}
}
