package peer

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Revisions is what a process has seen of the cluster's revisions (N2).
type Revisions interface {
	Seen() shard.Revision
	Observe(shard.Revision)
}

// Client sends requests to one node over one stream, which it opens when needed and
// again after it broke. It is safe for concurrent use.
type Client struct {
	conn      *grpc.ClientConn
	revisions Revisions

	mu struct {
		sync.Mutex
		link   *link // nil while there is no stream
		closed bool
	}
}

// NewClient returns a Client over conn, which it closes with itself.
func NewClient(conn *grpc.ClientConn, revisions Revisions) *Client {
	return &Client{conn: conn, revisions: revisions}
}

// Conn is the connection, for the node's other calls.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// Close fails everything under way.
func (c *Client) Close() error {
	c.mu.Lock()
	c.mu.closed = true
	l := c.mu.link
	c.mu.Unlock()
	if l != nil {
		l.cancel()
	}
	return c.conn.Close()
}

// Send sends one request and waits for its reply.
func (c *Client) Send(ctx context.Context, req *router.Request) (*router.Reply, error) {
	out, err := encodeRequest(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", shard.ErrUnavailable, err)
	}
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	call := &call{reply: make(chan *routerpb.Reply, 1)}
	if err := l.enqueue(out, call); err != nil {
		return nil, err
	}
	select {
	case in := <-call.reply:
		return decodeReply(req, in)
	case <-l.done:
		select { // a reply that came just before the end counts
		case in := <-call.reply:
			return decodeReply(req, in)
		default:
		}
		return nil, l.lost(req, call)
	case <-ctx.Done():
		return l.leave(req, out.Id, call, context.Cause(ctx))
	case <-req.GiveUp:
		return l.leave(req, out.Id, call, router.ErrRequestTimeout)
	}
}

// open returns the stream, a new one if there is none.
func (c *Client) open() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil, fmt.Errorf("connection to the node is closed: %w", shard.ErrUnavailable)
	}
	if l := c.mu.link; l != nil {
		select {
		case <-l.done:
		default:
			return l, nil
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{revisions: c.revisions, cancel: cancel, kick: make(chan struct{}, 1), done: make(chan struct{})}
	l.mu.calls = make(map[uint64]*call)
	c.mu.link = l
	go l.run(ctx, routerpb.NewPeerClient(c.conn))
	return l, nil
}

// call is a request that waits for its reply.
type call struct {
	reply chan *routerpb.Reply
	sent  bool // guarded by link.mu: handed to gRPC, or about to be
}

// link is one stream while it lives.
type link struct {
	revisions Revisions
	cancel    context.CancelFunc
	kick      chan struct{} // there is something to send
	done      chan struct{} // closed when the stream has ended
	err       error         // why; set before done is closed

	mu struct {
		sync.Mutex
		nextID uint64
		calls  map[uint64]*call
		queue  []*routerpb.Request
	}
}

// queueRequestsMax bounds what waits for a stream that does not drain.
const queueRequestsMax = 32 << 10

const (
	// frameMessagesMax and frameBytesMax bound a frame, so that a burst does not become
	// one message that delays all others, or that is larger than a receiver takes: that
	// would end the stream and leave everything under way on it unknown. A single larger
	// request or reply goes alone.
	frameMessagesMax = 1024
	frameBytesMax    = 4 << 20
)

// fill returns how many of the queued messages make the next frame, and their size.
func fill[M interface{ SizeVT() int }](queue []M) (n, bytes int) {
	for n < len(queue) && n < frameMessagesMax {
		size := queue[n].SizeVT()
		if n > 0 && bytes+size > frameBytesMax {
			break
		}
		n, bytes = n+1, bytes+size
	}
	return n, bytes
}

func (l *link) enqueue(req *routerpb.Request, c *call) error {
	l.mu.Lock()
	if len(l.mu.queue) >= queueRequestsMax {
		l.mu.Unlock()
		return fmt.Errorf("queue to the node is full: %w", shard.ErrOverloaded)
	}
	l.mu.nextID++
	req.Id = l.mu.nextID
	l.mu.calls[req.Id] = c
	l.mu.queue = append(l.mu.queue, req)
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
	return nil
}

// abandon forgets a call and reports whether its request may have left (N1).
func (l *link) abandon(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.mu.calls[id]
	delete(l.mu.calls, id)
	if c == nil || c.sent {
		return true
	}
	for i, req := range l.mu.queue {
		if req.Id == id {
			l.mu.queue = append(l.mu.queue[:i], l.mu.queue[i+1:]...)
			break
		}
	}
	return false
}

// leave ends the wait for a reply because of cause.
func (l *link) leave(req *router.Request, id uint64, c *call, cause error) (*router.Reply, error) {
	sent := l.abandon(id)
	select {
	case in := <-c.reply:
		return decodeReply(req, in)
	default:
	}
	if sent && req.Op == routerpb.Op_OP_WRITE {
		return nil, fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, cause) // N1
	}
	return nil, fmt.Errorf("no reply from the node: %w: %w", shard.ErrUnavailable, cause)
}

// lost is the outcome of a call whose stream ended before its reply came.
func (l *link) lost(req *router.Request, c *call) error {
	l.mu.Lock()
	sent := c.sent
	l.mu.Unlock()
	if sent && req.Op == routerpb.Op_OP_WRITE {
		return fmt.Errorf("stream to the node ended: %w: %w", shard.ErrUnknownOutcome, l.err)
	}
	return fmt.Errorf("no stream to the node: %w: %w", shard.ErrUnavailable, l.err)
}

func (l *link) run(ctx context.Context, client routerpb.PeerClient) {
	defer l.cancel()
	stream, err := client.Exchange(ctx, grpc.ForceCodecV2(Codec()))
	if err != nil {
		l.end(err)
		return
	}
	received := make(chan error, 1)
	go func() { received <- l.receive(stream) }()
	for {
		select {
		case <-l.kick:
			if err := l.flush(stream); err != nil {
				// The receiver knows why the stream broke.
				l.cancel()
				l.end(<-received)
				return
			}
		case err := <-received:
			l.end(err)
			return
		}
	}
}

func (l *link) end(err error) {
	if err == nil {
		err = context.Canceled
	}
	l.err = err
	close(l.done)
}

// flush sends all that waits.
func (l *link) flush(stream grpc.BidiStreamingClient[routerpb.Frame, routerpb.Frame]) error {
	for {
		l.mu.Lock()
		n, _ := fill(l.mu.queue)
		requests := l.mu.queue[:n:n]
		l.mu.queue = l.mu.queue[n:]
		for _, req := range requests {
			if c := l.mu.calls[req.Id]; c != nil {
				c.sent = true
			}
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
	for {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		l.revisions.Observe(shard.Revision(frame.HighestRevision))
		l.mu.Lock()
		for _, reply := range frame.Replies {
			if c := l.mu.calls[reply.Id]; c != nil {
				delete(l.mu.calls, reply.Id)
				c.reply <- reply // buffered
			}
		}
		l.mu.Unlock()
	}
}
