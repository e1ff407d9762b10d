package etcdapi

import (
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // clients may send compressed requests, and are answered so
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
)

// Server serves etcd's API. It may be registered with several gRPC servers.
type Server struct {
	cfg      Config
	kv       KV
	watches  Watches
	leases   Leases
	cluster  Cluster
	health   *health.Server
	rpcs     *rpcMetrics
	gets     *rpcCounters // of Range
	checks   *healthMetrics
	watching *watchMetrics
	leased   *leaseMetrics
	encoder  encoder
	web      webCalls
	// snapshots has a token for each snapshot in progress.
	snapshots chan struct{}
}

// New returns a Server that carries out requests with kv, watches, leases and cluster.
func New(cfg Config, kv KV, watches Watches, leases Leases, cluster Cluster) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, kv: kv, watches: watches, leases: leases, cluster: cluster,
		health:    health.NewServer(), // service "" is SERVING
		rpcs:      newRPCMetrics(cfg.Registerer),
		checks:    newHealthMetrics(cfg.Registerer),
		watching:  newWatchMetrics(cfg.Registerer),
		leased:    newLeaseMetrics(cfg.Registerer),
		snapshots: make(chan struct{}, snapshotsMax),
	}
	registerState(cfg.Registerer, cluster)
	s.gets = s.rpcs.of(pb.KV_Range_FullMethodName)
	return s
}

// Register adds etcd's services to a gRPC server made with ServerOptions.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	pb.RegisterKVServer(g, &kvServer{Server: s})
	pb.RegisterWatchServer(g, &watchServer{Server: s})
	pb.RegisterLeaseServer(g, &leaseServer{Server: s})
	pb.RegisterClusterServer(g, &clusterServer{Server: s})
	pb.RegisterMaintenanceServer(g, &maintenanceServer{Server: s})
	pb.RegisterAuthServer(g, &authServer{Server: s})
	healthpb.RegisterHealthServer(g, s.health)
}

// ServerOptions returns the options with which a gRPC server behaves like etcd's.
func (s *Server) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.interceptUnary),
		grpc.ChainStreamInterceptor(s.interceptStream),
		grpc.UnknownServiceHandler(refuseUnknown),
		grpc.ForceServerCodecV2(codec{s.cfg.Codec}),
		grpc.MaxRecvMsgSize(s.cfg.MaxRequestBytes + messageOverheadBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: pingMinTime, PermitWithoutStream: false,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: pingInterval, Timeout: pongTimeout,
		}),
	}
}

// Front configures a server in front of such a gRPC server.
func (s *Server) Front() rpcfront.Config {
	return rpcfront.Config{
		Codec: codec{s.cfg.Codec}, Appender: appenderOf, Interceptor: s.interceptUnary, Starters: s.starters(), StreamInterceptor: s.interceptStream,
		MaxRecvBytes: s.cfg.MaxRequestBytes + messageOverheadBytes,
		MaxStreams:   streamsMax, PingMinTime: pingMinTime, PongDelay: pongDelay,
	}
}

// pongDelay is the maximum delay of the response to a ping with which a client measures its
// connection's bandwidth.
const pongDelay = 250 * time.Millisecond

// Drain tells health checkers, permanently, that this node is about to stop. Requests are still
// served.
func (s *Server) Drain() { s.health.Shutdown() }

// header returns a full response header at the revision.
func (s *Server) header(revision int64) *pb.ResponseHeader {
	h := &pb.ResponseHeader{Revision: revision}
	s.fill(h)
	return h
}

// fill completes a header that has its revision already (E5).
func (s *Server) fill(h *pb.ResponseHeader) {
	h.ClusterId = s.cluster.ClusterID()
	h.MemberId = s.cluster.MemberID()
	h.RaftTerm = s.cluster.RaftTerm()
}

// etcdVersion is the etcd release whose API this is. Clients choose features by it and parse it:
// digits and dots only.
func etcdVersion() string { return version.Version }

// clusterVersion is the release that all members support; its patch is always 0.
func clusterVersion() string { return version.Cluster(version.Version) + ".0" }
