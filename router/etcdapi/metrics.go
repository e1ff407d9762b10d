package etcdapi

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/flotilla-kv/flotilla/router/etcdapi/v3electionpb"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3lockpb"
)

// rpcMetrics counts RPCs under the names that etcd's dashboards and alerts use.
type rpcMetrics struct {
	methods map[string]*rpcCounters // immutable; by full method
	other   *rpcCounters            // whatever else clients ask for
}

// rpcCounters are those of one method, looked up once because every request is counted.
type rpcCounters struct {
	started prometheus.Counter
	byCode  [codes.Unauthenticated + 1]prometheus.Counter
}

// handled returns the counter of RPCs that ended with the code.
func (c *rpcCounters) handled(code codes.Code) prometheus.Counter {
	if int(code) >= len(c.byCode) {
		code = codes.Unknown
	}
	return c.byCode[code]
}

func newRPCMetrics(reg prometheus.Registerer) *rpcMetrics {
	started := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "grpc_server_started_total",
		Help: "RPCs that began on this node.",
	}, []string{"grpc_type", "grpc_service", "grpc_method"})
	handled := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "grpc_server_handled_total",
		Help: "RPCs that ended on this node, by code. A growing share of Unavailable, Unknown, DataLoss or DeadlineExceeded means that clients see failures.",
	}, []string{"grpc_type", "grpc_service", "grpc_method", "grpc_code"})
	counters := func(kind, service, method string) *rpcCounters {
		c := &rpcCounters{started: started.WithLabelValues(kind, service, method)}
		for code := range c.byCode {
			c.byCode[code] = handled.WithLabelValues(kind, service, method, codes.Code(code).String())
		}
		return c
	}

	// The methods are fixed, so a client cannot create label values.
	m := &rpcMetrics{methods: make(map[string]*rpcCounters), other: counters("unknown", "unknown", "unknown")}
	for _, service := range []grpc.ServiceDesc{
		pb.KV_ServiceDesc, pb.Watch_ServiceDesc, pb.Lease_ServiceDesc, pb.Cluster_ServiceDesc,
		pb.Maintenance_ServiceDesc, pb.Auth_ServiceDesc, healthpb.Health_ServiceDesc,
		v3lockpb.Lock_ServiceDesc, v3electionpb.Election_ServiceDesc,
	} {
		for _, method := range service.Methods {
			m.methods["/"+service.ServiceName+"/"+method.MethodName] = counters("unary", service.ServiceName, method.MethodName)
		}
		for _, stream := range service.Streams {
			m.methods["/"+service.ServiceName+"/"+stream.StreamName] = counters(streamKind(stream), service.ServiceName, stream.StreamName)
		}
	}
	return m
}

func streamKind(s grpc.StreamDesc) string {
	switch {
	case s.ClientStreams && s.ServerStreams:
		return "bidi_stream"
	case s.ClientStreams:
		return "client_stream"
	default:
		return "server_stream"
	}
}

// of returns the counters of a full method name.
func (m *rpcMetrics) of(fullMethod string) *rpcCounters {
	if c, ok := m.methods[fullMethod]; ok {
		return c
	}
	return m.other
}

// healthMetrics report the results of health checks, under etcd's names.
type healthMetrics struct {
	success, failures prometheus.Counter
	state             *prometheus.GaugeVec
	results           *prometheus.CounterVec
}

func newHealthMetrics(reg prometheus.Registerer) *healthMetrics {
	f := promauto.With(reg)
	return &healthMetrics{
		success: f.NewCounter(prometheus.CounterOpts{
			Name: "etcd_server_health_success",
			Help: "Requests to /health that found this node healthy.",
		}),
		failures: f.NewCounter(prometheus.CounterOpts{
			Name: "etcd_server_health_failures",
			Help: "Requests to /health that found this node unhealthy; the response and the log say why.",
		}),
		state: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "etcd_server_healthcheck",
			Help: "The last result of each check of /livez and /readyz: 1 is good, 0 is bad.",
		}, []string{"type", "name"}),
		results: f.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_server_healthchecks_total",
			Help: "Results of each check of /livez and /readyz.",
		}, []string{"type", "name", "status"}),
	}
}

// record counts the result of one check.
func (m *healthMetrics) record(probe, check string, err error) {
	state, result := 1.0, "success"
	if err != nil {
		state, result = 0, "error"
	}
	m.state.WithLabelValues(probe, check).Set(state)
	m.results.WithLabelValues(probe, check, result).Inc()
}

// leaseMetrics count clients' lease requests through this node, under etcd's names.
type leaseMetrics struct {
	granted, revoked, renewed prometheus.Counter
}

func newLeaseMetrics(reg prometheus.Registerer) *leaseMetrics {
	f := promauto.With(reg)
	return &leaseMetrics{
		granted: f.NewCounter(prometheus.CounterOpts{
			Name: "etcd_debugging_lease_granted_total",
			Help: "Leases that clients were granted through this node. Growing faster than leases end: somebody makes them and leaves them behind.",
		}),
		revoked: f.NewCounter(prometheus.CounterOpts{
			Name: "etcd_debugging_lease_revoked_total",
			Help: "Leases that clients revoked through this node. Those that expired are in etcd_server_lease_expired_total.",
		}),
		renewed: f.NewCounter(prometheus.CounterOpts{
			Name: "etcd_debugging_lease_renewed_total",
			Help: "Keepalives that found their lease, of clients of this node.",
		}),
	}
}

// registerState exports what Status tells and alerts for etcd look at, under etcd's names. It is asked for when somebody looks.
func registerState(reg prometheus.Registerer, cluster Cluster) {
	f := promauto.With(reg)
	status := func() Status {
		s, _ := cluster.Status(context.Background()) // unknown values are 0
		return s
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "etcd_server_has_leader",
		Help: "1: the meta group has a leader, as far as this node knows. Without one for long nothing is split or moved and no node joins; the nodes of its replicas are down or cut off.",
	}, func() float64 { return oneIf(cluster.HasLeader()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "etcd_server_is_leader",
		Help: "1: this node leads the meta group. Not 1 on exactly one node for long: see etcd_server_has_leader.",
	}, func() float64 { return oneIf(status().Leader == cluster.MemberID()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "etcd_mvcc_db_total_size_in_bytes",
		Help: "What the store takes on disk, what is about to be written included. Growing with a constant number of keys: look at --history-retention, and at flotilla_history_shards_waiting.",
	}, func() float64 { return float64(status().DBBytes) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "etcd_mvcc_db_total_size_in_use_in_bytes",
		Help: "What of etcd_mvcc_db_total_size_in_bytes is not in files that are about to be removed.",
	}, func() float64 { return float64(status().DBInUseBytes) })
	f.NewGaugeVec(prometheus.GaugeOpts{
		Name: "etcd_server_version",
		Help: "The release of etcd whose API this is, in the label.",
	}, []string{"server_version"}).WithLabelValues(etcdVersion()).Set(1)
	f.NewGaugeVec(prometheus.GaugeOpts{
		Name: "etcd_cluster_version",
		Help: "The release that all members speak, in the label.",
	}, []string{"cluster_version"}).WithLabelValues(version.Cluster(version.Version)).Set(1)
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// watchMetrics count watches, under etcd's names.
type watchMetrics struct {
	streams, watches prometheus.Gauge
	events           prometheus.Counter
}

func newWatchMetrics(reg prometheus.Registerer) *watchMetrics {
	f := promauto.With(reg)
	return &watchMetrics{
		streams: f.NewGauge(prometheus.GaugeOpts{
			Name: "etcd_debugging_mvcc_watch_stream_total",
			Help: "Watch streams that are open on this node. A client has one for all its watches; many more than clients mean that clients leave them behind.",
		}),
		watches: f.NewGauge(prometheus.GaugeOpts{
			Name: "etcd_debugging_mvcc_watcher_total",
			Help: "Watches that are open on this node, on all streams.",
		}),
		events: f.NewCounter(prometheus.CounterOpts{
			Name: "etcd_debugging_mvcc_events_total",
			Help: "Events that this node has sent to watches.",
		}),
	}
}
