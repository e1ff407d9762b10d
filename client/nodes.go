package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/shard"
)

// replyBytesMax is the largest message that a node sends.
const replyBytesMax = 64 << 20

// nodes are the client's connections, one per address, opened on demand. The router sends through
// them.
type nodes struct {
	cfg       Config
	directory *directory
	revisions peer.Revisions
	metrics   *metrics
	login     *login // nil: the client has no user

	mu struct {
		sync.Mutex
		clients map[endpoint]*peer.Client
		closed  bool
	}
	routes atomic.Pointer[routes]
	// followed is the node that supplies the map: one that was up when last heard of.
	followed atomic.Pointer[peer.Client]
	// returns are the goroutines that wait for nodes to be within reach again.
	returns sync.WaitGroup
}

// routes are connections to nodes by one version of the map: almost every operation finds its
// connection here.
type routes struct {
	places  *places
	clients map[shard.NodeID]*peer.Client
}

func newNodes(cfg Config, d *directory, revisions peer.Revisions, m *metrics) *nodes {
	n := &nodes{cfg: cfg, directory: d, revisions: revisions, metrics: m, login: newLogin(cfg)}
	n.mu.clients = make(map[endpoint]*peer.Client)
	return n
}

// at returns the connection to an address.
func (n *nodes) at(e endpoint) (*peer.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed {
		return nil, closedError{}
	}
	if c := n.mu.clients[e]; c != nil {
		return c, nil
	}
	if n.login != nil && n.cfg.TLS == nil && !e.secure && n.cfg.asksForTLS() {
		return nil, fmt.Errorf("connect to %s: %w: it speaks without TLS, and would get the password in the clear; the client's endpoints are https, so have the node advertise https", e.addr, shard.ErrUnavailable)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(n.credentials(e)),
		grpc.WithContextDialer(n.cfg.Dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(replyBytesMax)),
		grpc.WithReadBufferSize(64 << 10), grpc.WithWriteBufferSize(64 << 10),
		grpc.WithInitialWindowSize(4 << 20), grpc.WithInitialConnWindowSize(8 << 20),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: n.cfg.Backoff.Min, Multiplier: 1.6, Jitter: 0.2, MaxDelay: n.cfg.Backoff.Max},
			MinConnectTimeout: 2 * time.Second,
		}),
		// This detects a node that disappears silently (power, partition).
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
	}
	if n.login != nil {
		options = append(options, grpc.WithUnaryInterceptor(n.login.unary))
	}
	conn, err := grpc.NewClient("passthrough:///"+e.addr, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", e.addr, shard.ErrUnavailable, err)
	}
	var login peer.Login // not a *nodeLogin, which would not be nil here
	if n.login != nil {
		login = n.login.at(conn)
	}
	c := peer.NewNativeClient(conn, n.revisions, login)
	n.mu.clients[e] = c
	return c, nil
}

func (n *nodes) credentials(e endpoint) credentials.TransportCredentials {
	switch {
	case n.cfg.TLS != nil:
		return credentials.NewTLS(n.cfg.TLS)
	case e.secure:
		return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	default:
		return insecure.NewCredentials()
	}
}

// node returns the connection to a node.
func (n *nodes) node(id shard.NodeID) (*peer.Client, error) {
	known, held := n.directory.places.Load(), n.routes.Load()
	if held != nil && held.places == known {
		if c := held.clients[id]; c != nil {
			return c, nil
		}
	}
	e, ok := known.node(id)
	if !ok {
		return nil, fmt.Errorf("it has told no address for clients: %w", shard.ErrUnavailable)
	}
	c, err := n.at(e)
	if err != nil {
		return nil, err
	}
	next := &routes{known, map[shard.NodeID]*peer.Client{id: c}}
	if held != nil && held.places == known {
		maps.Copy(next.clients, held.clients)
	}
	n.routes.CompareAndSwap(held, next) // else somebody else has added one, or closed all
	return c, nil
}

// way returns the connection by which requests reach a node: its own or, while that is broken or silent,
// that of another node, which relays them (native.V7). Relay is then the node, to be set in the request.
func (n *nodes) way(id shard.NodeID) (c *peer.Client, relay shard.NodeID, err error) {
	c, err = n.node(id)
	if err == nil && !c.Silent() && !c.Lost() {
		return c, 0, nil
	}
	if through := n.ready(c); through != nil {
		n.metrics.relays()
		return through, id, nil
	}
	return c, 0, err
}

// ready returns a connection by which some node other than that of not answers; nil if there is none. It prefers the node
// that supplies the map.
func (n *nodes) ready(not *peer.Client) *peer.Client {
	if c := n.followed.Load(); c != nil && c != not && c.Ready() {
		return c
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.mu.clients {
		if c != not && c.Ready() {
			return c
		}
	}
	return nil
}

// silent reports whether the node owes answers and has sent none for a while.
func (n *nodes) silent(id shard.NodeID) bool {
	held := n.routes.Load()
	return held != nil && held.clients[id] != nil && held.clients[id].Silent()
}

// Send implements router.Sender.
func (n *nodes) Send(ctx context.Context, id shard.NodeID, req *router.Request) (*router.Reply, error) {
	c, relay, err := n.way(id)
	if err != nil {
		return nil, n.Told(id, err)
	}
	req.Relay = relay
	reply, err := c.Send(ctx, req)
	return reply, n.Told(id, err)
}

// Start implements router.Starter.
func (n *nodes) Start(id shard.NodeID, req *router.Request, end router.Ender) router.Call {
	c, relay, err := n.way(id)
	if err != nil {
		end.End(nil, err)
		return ended{}
	}
	req.Relay = relay
	return c.Start(req, end)
}

// Told implements router.Starter.
func (n *nodes) Told(id shard.NodeID, err error) error {
	n.metrics.attempted(err)
	return named(id, err)
}

// ended is the Call of a request that ended at once.
type ended struct{}

func (ended) Abandon(error) {}

// Subscribe implements router.Subscriber.
func (n *nodes) Subscribe(ctx context.Context, id shard.NodeID, sub router.Subscription, ready func()) (router.Feed, error) {
	c, relay, err := n.way(id)
	if err != nil {
		return nil, named(id, err)
	}
	sub.Relay = relay
	feed, err := c.Subscribe(ctx, sub, ready)
	if err != nil {
		return nil, named(id, err) // not feed: a nil *feed would make a Feed that is not nil
	}
	if relay != 0 {
		return n.detour(id, feed), nil
	}
	return feed, nil
}

// detour returns a feed that was opened through another node. It ends when its own node is within reach again, so
// that it is opened there.
func (n *nodes) detour(id shard.NodeID, feed router.Feed) router.Feed {
	direct, err := n.node(id)
	if err != nil || direct.Silent() { // nobody says when it is heard again
		return feed
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed {
		cancel()
		return feed
	}
	n.returns.Go(func() {
		if direct.AwaitReady(ctx) {
			feed.Close() // as if its node had ended it
		}
	})
	return detour{feed, cancel}
}

// detour is a feed through another node.
type detour struct {
	router.Feed
	stay context.CancelFunc // ends the wait for its own node
}

// Close implements router.Feed.
func (d detour) Close() {
	d.stay()
	d.Feed.Close()
}

func named(id shard.NodeID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("node %s: %w", id, err)
}

func (n *nodes) close() {
	n.mu.Lock()
	n.mu.closed = true
	clients := n.mu.clients
	n.mu.clients = nil
	n.mu.Unlock()
	n.routes.Store(&routes{})
	for _, c := range clients {
		_ = c.Close() // fails only for a connection that is already closed
	}
	n.returns.Wait()
}
