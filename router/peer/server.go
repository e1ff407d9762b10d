package peer

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Executor carries out requests on this node; exec.Executor is one.
type Executor interface {
	Write(req *router.Request, done func(*router.Reply, error))
	router.Reader
	// Read returns soon after the request's shard has answered or failed to, without a
	// deadline.
	Read(ctx context.Context, req *router.Request) (*router.Reply, error)
}

// readsMax bounds the reads that one stream has under way; the next frame waits.
const readsMax = 1024

// Serve carries out what comes over the stream until it ends.
func Serve(stream grpc.BidiStreamingServer[routerpb.Frame, routerpb.Frame], exec Executor, revisions Revisions) error {
	ctx, cancel := context.WithCancel(stream.Context())
	out := &replies{kick: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	// The node closes its store when its streams have ended: no read may go on then.
	var work sync.WaitGroup
	work.Go(func() {
		defer cancel()
		out.send(ctx, stream, revisions)
	})
	defer work.Wait()
	defer cancel()
	reads := make(chan struct{}, readsMax)
	for {
		if err := out.wait(ctx); err != nil {
			return err
		}
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(frame.Requests) > frameMessagesMax {
			return status.Errorf(codes.InvalidArgument, "flotilla: a frame has %d requests, the most is %d", len(frame.Requests), frameMessagesMax)
		}
		revisions.Observe(shard.Revision(frame.HighestRevision))
		for _, in := range frame.Requests {
			id := in.Id
			req, err := decodeRequest(in)
			if err != nil {
				out.add(encodeReply(id, nil, err))
				continue
			}
			if req.Op == routerpb.Op_OP_WRITE {
				exec.Write(req, func(reply *router.Reply, err error) { out.add(encodeReply(id, reply, err)) })
				continue
			}
			select {
			case reads <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			work.Add(1)
			done := func(reply *router.Reply, err error) {
				out.add(encodeReply(id, reply, err))
				<-reads
				work.Done()
			}
			if !exec.StartRead(req, done) {
				go func() { done(exec.Read(ctx, req)) }() // ends by itself when its caller has given up
			}
		}
	}
}

// repliesBytesMax bounds the replies that a client has not taken. Beyond it nothing
// more is read from the stream, so that its client's queue fills up instead (N3).
const repliesBytesMax = 32 << 20

// replies waits to be sent. Adding never blocks, because Update adds the replies of
// writes; the reader of the stream waits for room.
type replies struct {
	kick chan struct{} // there is something to send
	room chan struct{} // something was sent
	mu   struct {
		sync.Mutex
		queue []queued
		bytes int
	}
}

// queued is a reply that waits.
type queued struct {
	reply *routerpb.Reply
	bytes int
}

// size implements sized.
func (q queued) size() int { return q.bytes }

func (r *replies) add(reply *routerpb.Reply) {
	q := queued{reply, reply.SizeVT()}
	r.mu.Lock()
	r.mu.queue = append(r.mu.queue, q)
	r.mu.bytes += q.bytes
	r.mu.Unlock()
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// wait returns when there is room for more replies.
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

// take moves the next frame's replies into it and returns their size.
func (r *replies) take(frame *routerpb.Frame) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, bytes := fill(r.mu.queue, frameBytesMax)
	for _, q := range r.mu.queue[:n] {
		frame.Replies = append(frame.Replies, q.reply)
	}
	r.mu.queue = slices.Delete(r.mu.queue, 0, n)
	return bytes
}

// sent gives the room of replies back.
func (r *replies) sent(bytes int) {
	r.mu.Lock()
	r.mu.bytes -= bytes
	r.mu.Unlock()
	select {
	case r.room <- struct{}{}:
	default:
	}
}

func (r *replies) send(ctx context.Context, stream grpc.BidiStreamingServer[routerpb.Frame, routerpb.Frame], revisions Revisions) {
	var frame routerpb.Frame
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		}
		for bytes := r.take(&frame); len(frame.Replies) > 0; bytes = r.take(&frame) {
			frame.HighestRevision = int64(revisions.Seen())
			err := stream.Send(&frame) // which encodes it before it returns
			clear(frame.Replies)
			if frame.Replies = frame.Replies[:0]; err != nil {
				return
			}
			r.sent(bytes)
		}
	}
}
