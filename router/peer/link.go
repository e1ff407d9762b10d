package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// link is one stream while it lives.
type link struct {
	bounds    bounds
	revisions Revisions
	cancel    context.CancelFunc
	kick      chan struct{} // there is something to send
	done      chan struct{} // closed when the stream has ended

	mu struct {
		sync.Mutex
		calls calls
		queue []*call
		bytes int   // of queue
		age   int   // counts glances
		ended error // why there is no stream any more
	}

	// frame and sending are what flush sends, kept for the next time.
	frame   routerpb.Frame
	sending []*call
}

func newLink(b bounds, revisions Revisions, cancel context.CancelFunc) *link {
	return &link{bounds: b, revisions: revisions, cancel: cancel, kick: make(chan struct{}, 1), done: make(chan struct{})}
}

func (l *link) enqueue(c *call) error {
	l.mu.Lock()
	if l.mu.ended != nil {
		defer l.mu.Unlock()
		return fmt.Errorf("no stream to the node: %w: %w", shard.ErrUnavailable, l.mu.ended)
	}
	if len(l.mu.queue) >= queueRequestsMax || l.mu.bytes > queueBytesMax || !l.mu.calls.add(c) {
		l.mu.Unlock()
		return fmt.Errorf("queue to the node is full: %w", shard.ErrOverloaded)
	}
	c.born = l.mu.age
	l.mu.queue = append(l.mu.queue, c)
	l.mu.bytes += c.bytes
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
	if l.mu.calls.take(c.out.Id) == nil {
		return false
	}
	if !c.sent {
		l.mu.bytes -= c.bytes
		i := slices.Index(l.mu.queue, c)
		l.mu.queue = slices.Delete(l.mu.queue, i, i+1)
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
	l.mu.calls, l.mu.queue = calls{}, nil
	l.mu.Unlock()
	close(l.done) // who begins anew because of an outcome gets a new stream
	for c := range left.all() {
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
	for c := range l.mu.calls.all() {
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
	for l.fill() {
		l.frame.HighestRevision = int64(l.revisions.Seen())
		err := stream.Send(&l.frame) // which encodes it before it returns
		clear(l.frame.Requests)
		clear(l.sending)
		if err != nil {
			return err
		}
	}
	return nil
}

// fill takes the next frame's requests out of the queue; false if there are none.
func (l *link) fill() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, bytes := fill(l.mu.queue, l.bounds.FrameBytes)
	l.sending, l.frame.Requests = append(l.sending[:0], l.mu.queue[:n]...), l.frame.Requests[:0]
	l.mu.queue = slices.Delete(l.mu.queue, 0, n)
	l.mu.bytes -= bytes
	for _, c := range l.sending {
		c.sent = true
		l.frame.Requests = append(l.frame.Requests, &c.out)
	}
	return n > 0
}

// receive hands replies to their callers until the stream ends.
func (l *link) receive(stream grpc.BidiStreamingClient[routerpb.Frame, routerpb.Frame]) error {
	var answered []*call
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		l.revisions.Observe(shard.Revision(frame.HighestRevision))
		answered = answered[:0]
		l.mu.Lock()
		for _, reply := range frame.Replies {
			answered = append(answered, l.mu.calls.take(reply.Id)) // nil if it was abandoned
		}
		l.mu.Unlock()
		for i, c := range answered {
			if c != nil {
				c.finish(frame.Replies[i], nil)
			}
		}
		clear(answered)
	}
}
