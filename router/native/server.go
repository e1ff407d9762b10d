package native

import (
	"context"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Router is the node's router; router.Router is one.
type Router interface {
	Put(ctx context.Context, req *pb.PutRequest) (*pb.PutResponse, error)
	Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error)
	auth.Leases

	Relay(ctx context.Context, node shard.NodeID, req *router.Request) (*router.Reply, error)
	RelayWrite(ctx context.Context, node shard.NodeID, req *router.Request, end router.Ender)
	RelayFeed(ctx context.Context, node shard.NodeID, sub router.Subscription, ready func()) (router.Feed, error)
}

// Config configures a Server.
type Config struct {
	// Self is the node.
	Self shard.NodeID
	// Executor returns what carries out the requests of a stream, whose context it is given.
	Executor  func(context.Context) peer.Executor
	Publisher peer.Publisher
	Router    Router
	// Table returns the node's copy of the placement table, and a channel that is closed when it is
	// no longer the newest.
	Table     func() (*placement.Map, <-chan struct{})
	Revisions peer.Revisions
	// Auth knows who clients are, and what they may do. Default: everybody may do everything.
	Auth *auth.Guard
	// Room admits requests. Default: unlimited.
	Room  *admission.Room
	Clock clock.Clock
	// MaxClockOffset is how far ahead of this node's clock a revision claimed by a client may be
	// (V2).
	MaxClockOffset time.Duration
}

// Server serves the Native service. Register it with a gRPC server that has peer.Codec.
type Server struct {
	routerpb.UnsafeNativeServer // a method that is added must be dealt with here

	cfg     Config
	bound   bound
	leaving context.Context
	leave   context.CancelFunc
	streams atomic.Int64 // of Exchange
}

// New returns a Server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, bound: bound{cfg.Revisions, cfg.Clock, cfg.MaxClockOffset}}
	s.leaving, s.leave = context.WithCancel(context.Background())
	return s
}

// leaveInterval is the time between looks at what is under way.
const leaveInterval = 10 * time.Millisecond

// Leave tells clients to send further requests elsewhere. It returns when they have all answers and have ended their
// streams, or when ctx ends. Feeds continue.
func (s *Server) Leave(ctx context.Context) {
	s.leave()
	for s.streams.Load() > 0 {
		select {
		case <-time.After(leaveInterval):
		case <-ctx.Done():
			return
		}
	}
}

// Register adds the service to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) { routerpb.RegisterNativeServer(g, s) }

// Exchange implements routerpb.NativeServer. Whoever may do nothing is told so in the answer to each request, so that the
// client knows of each that nothing was applied.
func (s *Server) Exchange(stream grpc.BidiStreamingServer[routerpb.Frame, routerpb.Frame]) error {
	s.streams.Add(1)
	defer s.streams.Add(-1)
	g := s.newGate(stream.Context())
	defer g.close()
	return peer.Serve(s.leaving, stream, g, s.bound)
}

// Subscribe implements routerpb.NativeServer.
func (s *Server) Subscribe(req *routerpb.SubscribeRequest, stream grpc.ServerStreamingServer[routerpb.ChangesFrame]) error {
	if req.From <= 0 {
		return refusal("changes from revision %d on", req.From)
	}
	from := s.cfg.Publisher
	if s.isElsewhere(shard.NodeID(req.Relay)) {
		from = elsewhere{stream.Context(), s.cfg.Router}
	}
	return peer.ServeSubscribe(req, stream, &permitted{Server: s, Publisher: from, caller: s.cfg.Auth.Of(stream.Context())}, s.bound)
}

// isElsewhere reports whether a request with this Relay is to be carried out by another node.
func (s *Server) isElsewhere(relay shard.NodeID) bool { return relay != 0 && relay != s.cfg.Self }

// elsewhere opens feeds at the nodes that they name.
type elsewhere struct {
	ctx    context.Context
	router Router
}

// Subscribe implements peer.Publisher.
func (e elsewhere) Subscribe(sub router.Subscription, ready func()) (router.Feed, error) {
	return e.router.RelayFeed(e.ctx, sub.Relay, sub, ready)
}

// FollowShards implements routerpb.NativeServer.
func (s *Server) FollowShards(req *routerpb.FollowShardsRequest, stream grpc.ServerStreamingServer[routerpb.ShardsUpdate]) error {
	caller := s.cfg.Auth.Of(stream.Context())
	if err := s.user(caller); err != nil {
		return err
	}
	// A client that knows all there is to know learns by this that the node is there.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	since := req.Version
	for {
		if err := s.user(caller); err != nil {
			return err
		}
		m, changed := s.cfg.Table()
		if m.ClusterID() != req.ClusterId {
			since = 0
		}
		if u := m.UpdateSince(since); u != nil {
			if err := stream.Send(forClients(u)); err != nil {
				return err
			}
			since, req.ClusterId = m.Version(), m.ClusterID()
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// forClients is the part of an update that clients receive (V5). A removed node has no addresses.
func forClients(u *placementpb.Update) *routerpb.ShardsUpdate {
	out := &routerpb.ShardsUpdate{Version: u.Map.Version, ClusterId: u.Map.ClusterId, Whole: u.Since == 0}
	for _, s := range u.Map.Shards {
		out.Shards = append(out.Shards, s.Descriptor_)
	}
	for _, n := range u.Map.Nodes {
		out.Nodes = append(out.Nodes, &routerpb.NodeAddress{NodeId: n.NodeId, ClientUrls: n.ClientUrls})
	}
	return out
}
