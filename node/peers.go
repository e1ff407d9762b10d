package node

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/exec"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/shard"
)

// peers are the node's connections to the others, one per address, opened on demand.
type peers struct {
	dial      func(ctx context.Context, addr string) (net.Conn, error)
	revisions peer.Revisions
	options   []grpc.DialOption

	mu struct {
		sync.Mutex
		clients map[string]*peer.Client
		closed  bool
	}
}

func newPeers(dial func(ctx context.Context, addr string) (net.Conn, error), revisions peer.Revisions, options []grpc.DialOption) *peers {
	p := &peers{dial: dial, revisions: revisions, options: options}
	p.mu.clients = make(map[string]*peer.Client)
	return p
}

// at returns the client of the node at a peer address.
func (p *peers) at(addr string) *peer.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.mu.clients[addr]; c != nil {
		return c
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, append(p.options[:len(p.options):len(p.options)],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(p.dial),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(peer.Codec()), grpc.MaxCallRecvMsgSize(requestBytesMax), grpc.MaxCallSendMsgSize(requestBytesMax)),
		grpc.WithInitialWindowSize(4<<20), grpc.WithInitialConnWindowSize(8<<20),
		// A peer that returns is found within a second.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		// This detects a peer that disappears silently (power, partition).
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
	)...)
	if err != nil {
		// Only a malformed target fails here, and addresses are host:port.
		panic(fmt.Sprintf("node: client for peer %s: %v", addr, err))
	}
	c := peer.NewClient(conn, p.revisions)
	if p.mu.closed {
		c.Close()
	}
	p.mu.clients[addr] = c
	return c
}

func (p *peers) close() {
	p.mu.Lock()
	p.mu.closed = true
	clients := slices.Collect(maps.Values(p.mu.clients))
	p.mu.Unlock()
	for _, c := range clients {
		c.Close() // it waits for callers, who may turn to another node
	}
}

// sender delivers routed requests: to this node's own replicas by a function call, to other nodes
// over their stream.
type sender struct {
	self  shard.NodeID
	exec  *exec.Executor
	peers *peers
	table *table
	own   ownWrites
	// answers are those to clients of this node, wherever the shards are.
	answers *admission.Answers
}

// admit refuses a write whose answer there may be no room for. It is asked last, when the write's turn has come (A8 of
// package admission).
func (s *sender) admit(req *router.Request) error {
	if s.answers.Crowded() && req.Refusable() {
		return s.answers.Refuse()
	}
	return nil
}

// Send implements router.Sender.
func (s *sender) Send(ctx context.Context, node shard.NodeID, req *router.Request) (*router.Reply, error) {
	if err := s.admit(req); err != nil {
		return nil, err
	}
	if node == s.self {
		return s.local(ctx, req)
	}
	n := s.table.Map().Node(node)
	if n == nil {
		return nil, unknownNode(node)
	}
	reply, err := s.peers.at(n.PeerAddr).Send(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return reply, nil
}

// Start implements router.Starter, for writes.
func (s *sender) Start(node shard.NodeID, req *router.Request, end router.Ender) router.Call {
	if err := s.admit(req); err != nil {
		w := s.own.begin(end)
		w.finish(nil, err)
		return w
	}
	if node == s.self {
		w := s.own.begin(end)
		s.exec.Write(req, router.EndFunc(w.finish))
		return w
	}
	n := s.table.Map().Node(node)
	if n == nil {
		w := s.own.begin(end)
		w.finish(nil, unknownNode(node))
		return w
	}
	return s.peers.at(n.PeerAddr).Start(req, end)
}

// Told implements router.Starter.
func (s *sender) Told(node shard.NodeID, err error) error {
	n := s.table.Map().Node(node)
	if node == s.self || n == nil {
		return err
	}
	return fmt.Errorf("node %s: %w", n.Name, err)
}

func unknownNode(node shard.NodeID) error {
	return fmt.Errorf("node %s is not in the placement table: %w", node, shard.ErrUnavailable)
}

type outcome struct {
	reply *router.Reply
	err   error
}

func (s *sender) local(ctx context.Context, req *router.Request) (*router.Reply, error) {
	if req.Command == nil {
		return s.exec.Read(ctx, req)
	}
	done := make(chan outcome, 1)
	s.exec.Write(req, router.EndFunc(func(reply *router.Reply, err error) { done <- outcome{reply, err} }))
	select {
	case o := <-done:
		return o.reply, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, context.Cause(ctx))
	case <-req.GiveUp:
		return nil, fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, router.ErrRequestTimeout)
	}
}
