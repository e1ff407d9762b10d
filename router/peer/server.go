package peer

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Executor carries out requests on this node; exec.Executor is one.
type Executor interface {
	Write(req *router.Request, done func(*router.Reply, error))
	Read(ctx context.Context, req *router.Request) (*router.Reply, error)
}

// readsMax bounds the reads that one stream has under way; the next frame waits.
const readsMax = 1024

// Serve carries out what comes over the stream until it ends.
func Serve(stream grpc.BidiStreamingServer[routerpb.Frame, routerpb.Frame], exec Executor, revisions Revisions) error {
	ctx, cancel := context.WithCancel(stream.Context())
	out := &replies{kick: make(chan struct{}, 1)}
	var sender sync.WaitGroup
	sender.Go(func() {
		defer cancel()
		out.send(ctx, stream, revisions)
	})
	defer sender.Wait()
	defer cancel()
	reads := make(chan struct{}, readsMax)
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
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
			go func() {
				defer func() { <-reads }()
				// The caller gives up by itself; this only bounds what it leaves behind.
				ctx, cancel := context.WithTimeout(ctx, router.RequestTimeout)
				defer cancel()
				reply, err := exec.Read(ctx, req)
				out.add(encodeReply(id, reply, err))
			}()
		}
	}
}

// replies waits to be sent. Writers never block: what a stream has under way is
// bounded by what its client queued.
type replies struct {
	kick chan struct{}
	mu   struct {
		sync.Mutex
		queue []*routerpb.Reply
	}
}

func (r *replies) add(reply *routerpb.Reply) {
	r.mu.Lock()
	r.mu.queue = append(r.mu.queue, reply)
	r.mu.Unlock()
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

func (r *replies) send(ctx context.Context, stream grpc.BidiStreamingServer[routerpb.Frame, routerpb.Frame], revisions Revisions) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		}
		for {
			r.mu.Lock()
			queue := r.mu.queue
			r.mu.queue = nil
			r.mu.Unlock()
			if len(queue) == 0 {
				break
			}
			if err := stream.Send(&routerpb.Frame{Replies: queue, HighestRevision: int64(revisions.Seen())}); err != nil {
				return
			}
		}
	}
}
