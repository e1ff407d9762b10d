package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/router/watchmerge"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/hlc"
)

// cachedShards bounds the router's cache: more than the number of shards a cluster is meant to
// have.
const cachedShards = 16 << 10

// Client is a connection to a cluster. It is safe for concurrent use.
type Client struct {
	cfg       Config
	endpoints []endpoint
	directory *directory
	nodes     *nodes
	cache     *router.Cache
	router    *router.Router
	merger    *watchmerge.Merger
	revisions *hlc.Hybrid // revisions that the client has seen; it stamps nothing
	metrics   *metrics
	tracer    *tracer
	waiters   sync.Pool // of *waiter

	cancel context.CancelFunc
	closed chan struct{}
	once   sync.Once

	// running are the goroutines that end with closed.
	running struct {
		sync.Mutex
		closed bool
		work   sync.WaitGroup
	}
}

// New returns a client. It does not wait for a node to answer; operations do.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	counts, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, closed: make(chan struct{}), directory: newDirectory(), revisions: hlc.NewHybrid(clock.System{}),
		metrics: counts, tracer: newTracer(cfg.TracerProvider),
	}
	c.waiters.New = c.newWaiter
	for _, s := range cfg.Endpoints {
		e, err := parseEndpoint(s)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, e)
	}
	c.nodes = newNodes(cfg, c.directory, c.revisions, c.metrics)
	c.cache = router.NewCache(c.metrics.counted(c.directory), cachedShards)
	c.router = router.New(router.Config{
		Silent: c.nodes.silent, Cache: c.cache, Sender: c.nodes, Starter: c.nodes, Subscriber: c.nodes, Revisions: c.revisions, Logger: cfg.Logger,
	})
	c.merger = watchmerge.New(c.router, watchmerge.Knobs{})
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.spawn(func() { c.follow(ctx) })
	return c, nil
}

// Close ends everything in flight and waits for it (X5). Later operations fail with ErrClosed. It
// must not be called from a callback of Go.
func (c *Client) Close() {
	c.once.Do(func() {
		c.running.Lock()
		c.running.closed = true
		c.running.Unlock()
		close(c.closed)
		c.directory.close()
		c.cancel()
		c.nodes.close() // everything in flight fails, and nothing is sent again
		c.merger.Close()
		c.router.Close()
		c.running.work.Wait()
	})
}

// spawn runs f unless the client is closed.
func (c *Client) spawn(f func()) bool {
	c.running.Lock()
	defer c.running.Unlock()
	if !c.running.closed {
		c.running.work.Go(f)
	}
	return !c.running.closed
}

// follow keeps the map up to date, from any node that answers, until ctx ends.
func (c *Client) follow(ctx context.Context) {
	for pause := time.Duration(0); ; {
		known := append(append([]endpoint(nil), c.endpoints...), c.directory.endpoints()...)
		for _, e := range known {
			told, err := c.followOne(ctx, e)
			if ctx.Err() != nil {
				return
			}
			c.directory.fail(err)
			c.cfg.Logger.Debug("following the map of shards ended", "endpoint", e.addr, "error", err)
			if told {
				pause = 0
			}
		}
		pause = min(max(2*pause, c.cfg.Backoff.Min), c.cfg.Backoff.Max)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// followOne receives updates from one node until it has no more; the error says why. told reports
// whether there were any.
func (c *Client) followOne(ctx context.Context, e endpoint) (told bool, err error) {
	node, err := c.nodes.at(e)
	if err != nil {
		return false, err
	}
	token := ""
	if l := c.nodes.login; l != nil {
		if token, err = l.get(ctx, node.Conn()); err != nil {
			return false, err
		}
		defer func() {
			if l.Refused(token, err) {
				err = fmt.Errorf("%w: %w", shard.ErrUnavailable, err) // the next attempt has another
			}
		}()
	}
	ctx, cancel := context.WithCancel(withToken(ctx, token))
	defer cancel()
	stream, err := routerpb.NewNativeClient(node.Conn()).FollowShards(ctx, c.directory.since(), grpc.ForceCodecV2(peer.Codec()))
	if err != nil {
		return false, err
	}
	if header, err := stream.Header(); err == nil && header != nil { // otherwise Recv returns the error
		c.nodes.followed.Store(node) // even if there is no update yet
	}
	for {
		u, err := stream.Recv()
		if err != nil {
			return told, err
		}
		shards, err := c.directory.take(u)
		if err != nil {
			return told, err
		}
		told = true
		for _, d := range shards {
			c.cache.Learn(d)
		}
	}
}

// anyNode returns a connection to a node that was up when last heard of, for requests that any node
// can serve: not to the one that was asked before, if there is another.
func (c *Client) anyNode(ctx context.Context, before *peer.Client) (*peer.Client, error) {
	if _, err := c.directory.Lookup(ctx, nil); err != nil {
		return nil, err
	}
	if node := c.nodes.ready(before); node != nil {
		return node, nil
	}
	return c.nodes.followed.Load(), nil
}
