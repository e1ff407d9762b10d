package peer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Revisions is what a process knows of the cluster's revisions (N2).
type Revisions interface {
	Seen() shard.Revision
	Observe(shard.Revision)
}

// service is what a Client calls: a peer, or a node that serves native clients.
type service interface {
	Exchange(ctx context.Context, opts ...grpc.CallOption) (grpc.BidiStreamingClient[routerpb.Frame, routerpb.Frame], error)
	Subscribe(ctx context.Context, in *routerpb.SubscribeRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[routerpb.ChangesFrame], error)
}

// Login provides the tokens by which a node knows whose the streams to it are.
type Login interface {
	// Token returns the token for a new stream, "" for none. Its error is certain: either shard.ErrUnavailable, or a
	// refusal with a gRPC code.
	Token(ctx context.Context) (string, error)
	// Refused reports whether err is the node's refusal of the token, so that a new stream, with another, is worth a try.
	Refused(token string, err error) bool
}

// Client sends requests to one node over one stream, which it opens on demand and reopens after it
// broke. It is safe for concurrent use.
type Client struct {
	conn      *grpc.ClientConn
	service   service
	bounds    bounds
	buffers   *frameBuffers
	revisions Revisions
	state     state
	login     Login // nil: the streams have no token

	mu struct {
		sync.Mutex
		link   *link // nil while there is no stream
		closed bool
	}
	links sync.WaitGroup // the streams that have not ended
}

// state is what a node has last shown of itself.
type state struct {
	silent atomic.Bool // it owes answers on an open stream, and has given none for a while
	broke  atomic.Bool // the last stream broke, or could not be opened
}

// NewClient returns a Client of the peer at conn. Closing the client closes conn.
func NewClient(conn *grpc.ClientConn, revisions Revisions) *Client {
	return &Client{conn: conn, service: routerpb.NewPeerClient(conn), bounds: peerBounds(), buffers: newFrameBuffers(), revisions: revisions}
}

// NewNativeClient returns a Client of the node whose client port is at conn. Closing the client
// closes conn. login may be nil.
func NewNativeClient(conn *grpc.ClientConn, revisions Revisions, login Login) *Client {
	return &Client{conn: conn, service: routerpb.NewNativeClient(conn), bounds: nativeBounds(), buffers: newFrameBuffers(), revisions: revisions, login: login}
}

// tokenFor is the token for a new stream, and the context with which to open it.
func tokenFor(ctx context.Context, l Login) (string, context.Context, error) {
	if l == nil {
		return "", ctx, nil
	}
	token, err := l.Token(ctx)
	if err != nil || token == "" {
		return token, ctx, err
	}
	return token, metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token), nil
}

// refused turns a node's refusal of a stream's token into an error after which the request is made again, by a new stream.
func refused(l Login, token string, err error) (bool, error) {
	if err == nil || l == nil || !l.Refused(token, err) {
		return false, err
	}
	return true, fmt.Errorf("%w: the node refused the token: %w", shard.ErrUnavailable, err)
}

// Conn is the connection, for the node's other calls.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// Close fails everything in flight and waits for the stream to end.
func (c *Client) Close() error {
	c.mu.Lock()
	c.mu.closed = true
	l := c.mu.link
	c.mu.Unlock()
	if l != nil {
		l.cancel()
	}
	err := c.conn.Close()
	c.links.Wait()
	return err
}

// Send sends one request and waits for its reply.
func (c *Client) Send(ctx context.Context, req *router.Request) (*router.Reply, error) {
	answers := make(chan answer, 1)
	call := c.begin(&call{asked: req, answers: answers})
	var a answer
	select {
	case a = <-answers:
	case <-ctx.Done():
		call.Abandon(context.Cause(ctx))
		a = <-answers // the reply, if it came just before
	case <-req.GiveUp:
		call.Abandon(router.ErrRequestTimeout)
		a = <-answers
	}
	if a.err != nil {
		return nil, a.err
	}
	var err error
	if a.reply.Message, err = decodeBody(req, a.body); err != nil {
		return nil, err
	}
	return &a.reply, nil
}

// Start implements router.Starter. end must not block: the goroutine that reads the stream calls
// it.
func (c *Client) Start(req *router.Request, end router.Ender) router.Call {
	return c.begin(&call{asked: req, end: end})
}

// Silent reports whether the node owes answers and has given none for a while.
func (c *Client) Silent() bool { return c.state.silent.Load() }

// Lost reports whether a stream to the node broke, or could not be opened, and there has been no connection
// since. It makes sure that one is attempted.
func (c *Client) Lost() bool {
	if !c.state.broke.Load() {
		return false
	}
	switch c.conn.GetState() {
	case connectivity.Ready:
		c.state.broke.Store(false)
		return false
	case connectivity.Idle:
		c.conn.Connect()
	}
	return true
}

// Ready reports whether there is a connection to the node, and it is not silent.
func (c *Client) Ready() bool { return c.conn.GetState() == connectivity.Ready && !c.Silent() }

// AwaitReady returns true when there is a connection to the node, and false when ctx has ended before, or the
// client was closed.
func (c *Client) AwaitReady(ctx context.Context) bool {
	for {
		switch now := c.conn.GetState(); {
		case now == connectivity.Ready:
			return true
		case now == connectivity.Shutdown:
			return false
		case now == connectivity.Idle:
			c.conn.Connect()
			fallthrough
		default:
			if !c.conn.WaitForStateChange(ctx, now) {
				return false
			}
		}
	}
}

// begin puts the request into the stream's queue. The call gets its outcome once, perhaps before
// begin returns.
func (c *Client) begin(call *call) *call {
	r := request{asked: call.asked}
	if err := r.prepare(); err != nil {
		call.fail(fmt.Errorf("%w: %w", shard.ErrUnavailable, err))
		return call
	}
	if r.bytes+idBytesMax > c.bounds.RequestBytes {
		call.fail(rpctypes.ErrGRPCRequestTooLarge)
		return call
	}
	for {
		l, err := c.open()
		if err == nil {
			call.link = l
			err = l.enqueue(call, &r)
		}
		if err == errRetired { // since open returned it
			continue
		}
		if err != nil {
			call.fail(err)
		}
		return call
	}
}

// open returns the stream, opening one if there is none.
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
			if !l.retired.Load() {
				return l, nil
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.state.broke.Store(false)
	l := newLink(c.bounds, c.buffers, c.revisions, &c.state, cancel)
	l.login = c.login
	c.mu.link = l
	c.links.Go(func() { l.run(ctx, c.service) })
	return l, nil
}
