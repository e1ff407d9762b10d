package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// call is a request that waits for its reply.
type call struct {
	write  bool
	size   int                          // of the request
	finish func(*routerpb.Reply, error) // called once, without link.mu

	// Set when it is enqueued.
	link *link
	id   uint64
	born int // link.mu.age then

	sent bool // guarded by link.mu: handed to gRPC, or about to be
}

// Abandon implements router.Call.
func (c *call) Abandon(cause error) {
	if c.link == nil || !c.link.forget(c) {
		return // it has ended
	}
	c.finish(nil, c.outcome(fmt.Errorf("no reply from the node: %w", cause)))
}

// outcome is that of a call which ended without a reply (N1). It has been forgotten.
func (c *call) outcome(why error) error {
	if c.sent && c.write {
		return fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, why)
	}
	return fmt.Errorf("%w: %w", shard.ErrUnavailable, why)
}

// link is one stream while it lives.
type link struct {
	bounds    bounds
	revisions Revisions
	cancel    context.CancelFunc
	kick      chan struct{} // there is something to send
	done      chan struct{} // closed when the stream has ended

	mu struct {
		sync.Mutex
		nextID uint64
		calls  map[uint64]*call
		queue  []*routerpb.Request
		bytes  int   // of queue
		age    int   // counts glances
		ended  error // why there is no stream any more
	}
}

func newLink(b bounds, revisions Revisions, cancel context.CancelFunc) *link {
	l := &link{bounds: b, revisions: revisions, cancel: cancel, kick: make(chan struct{}, 1), done: make(chan struct{})}
	l.mu.calls = make(map[uint64]*call)
	return l
}

func (l *link) enqueue(req *routerpb.Request, c *call) error {
	l.mu.Lock()
	if l.mu.ended != nil {
		defer l.mu.Unlock()
		return fmt.Errorf("no stream to the node: %w: %w", shard.ErrUnavailable, l.mu.ended)
	}
	if len(l.mu.queue) >= queueRequestsMax || l.mu.bytes > queueBytesMax {
		l.mu.Unlock()
		return fmt.Errorf("queue to the node is full: %w", shard.ErrOverloaded)
	}
	l.mu.nextID++
	req.Id, c.id, c.born = l.mu.nextID, l.mu.nextID, l.mu.age
	l.mu.calls[req.Id] = c
	l.mu.queue = append(l.mu.queue, req)
	l.mu.bytes += c.size
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
	return nil
}

// forget drops a call that is not to be answered any more; false if it has been.
func (l *link) forget(c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.calls[c.id] != c {
		return false
	}
	delete(l.mu.calls, c.id)
	if !c.sent {
		l.mu.bytes -= c.size
		for i, req := range l.mu.queue {
			if req.Id == c.id {
				l.mu.queue = append(l.mu.queue[:i], l.mu.queue[i+1:]...)
				break
			}
		}
	}
	return true
}

func (l *link) run(ctx context.Context, s service) {
	defer l.cancel()
	stream, err := s.Exchange(ctx, grpc.ForceCodecV2(Codec()))
	if err != nil {
		l.end(err)
		return
	}
	received := make(chan error, 1)
	go func() { received <- l.receive(stream) }()
	look := time.NewTicker(glance)
	defer look.Stop()
	for {
		select {
		case <-l.kick:
			if err := l.flush(stream); err != nil {
				// The receiver knows why the stream broke.
				l.cancel()
				l.end(<-received)
				return
			}
		case <-look.C:
			l.expire()
		case err := <-received:
			l.end(err)
			return
		}
	}
}

// end gives every call that has no reply its outcome.
func (l *link) end(err error) {
	if err == nil {
		err = context.Canceled
	}
	l.mu.Lock()
	l.mu.ended = err
	left := l.mu.calls
	l.mu.calls, l.mu.queue = nil, nil
	l.mu.Unlock()
	close(l.done) // who begins anew because of an outcome gets a new stream
	for _, c := range left {
		c.finish(nil, c.outcome(fmt.Errorf("stream to the node ended: %w", err)))
	}
}

// Requests wait for their replies patience, about, whatever their callers do: a node
// answers within router.RequestTimeout. A sweep over all is cheaper than a timer for each.
const (
	glance   = 500 * time.Millisecond
	patience = int((router.RequestTimeout + time.Second) / glance)
)

var errNoAnswer = errors.New("the node did not answer in time")

func (l *link) expire() {
	var late []*call
	l.mu.Lock()
	l.mu.age++
	for _, c := range l.mu.calls {
		if l.mu.age-c.born > patience {
			late = append(late, c)
		}
	}
	l.mu.Unlock()
	for _, c := range late {
		c.Abandon(errNoAnswer)
	}
}

// flush sends all that waits.
func (l *link) flush(stream grpc.BidiStreamingClient[routerpb.Frame, routerpb.Frame]) error {
	for {
		l.mu.Lock()
		n, _ := fill(l.mu.queue, l.bounds.FrameBytes)
		requests := l.mu.queue[:n:n]
		l.mu.queue = l.mu.queue[n:]
		for _, req := range requests {
			c := l.mu.calls[req.Id]
			c.sent = true
			l.mu.bytes -= c.size
		}
		l.mu.Unlock()
		if n == 0 {
			return nil
		}
		frame := &routerpb.Frame{Requests: requests, HighestRevision: int64(l.revisions.Seen())}
		if err := stream.Send(frame); err != nil {
			return err
		}
	}
}

// receive hands replies to their callers until the stream ends.
func (l *link) receive(stream grpc.BidiStreamingClient[routerpb.Frame, routerpb.Frame]) error {
	var calls []*call
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		l.revisions.Observe(shard.Revision(frame.HighestRevision))
		calls = calls[:0]
		l.mu.Lock()
		for _, reply := range frame.Replies {
			calls = append(calls, l.mu.calls[reply.Id]) // nil if it was abandoned
			delete(l.mu.calls, reply.Id)
		}
		l.mu.Unlock()
		for i, c := range calls {
			if c != nil {
				c.finish(frame.Replies[i], nil)
			}
		}
	}
}
