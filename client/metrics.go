package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// metrics of a client; nil if they are not exported.
type metrics struct {
	operations *prometheus.CounterVec
	seconds    [transact + 1]prometheus.Observer
	attempts   *prometheus.CounterVec
	lookups    prometheus.Counter
	relayed    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	m := &metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flotilla_client_operations_total",
			Help: "Operations that have ended, by outcome. unknown: sent, and no answer came; look at the key before doing it again. failed: certainly not applied.",
		}, []string{"op", "outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flotilla_client_attempt_failures_total",
			Help: "Requests to a node that ended without an answer to the operation, by reason. wrong_shard and not_leader come with splits, moves and elections and are repaired by the answer; many unavailable: a node is down or out of reach.",
		}, []string{"reason"}),
		lookups: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_client_cache_misses_total",
			Help: "Lookups of a key's shard that the cache could not answer. Rises at the start and after moves; if it rises all the time, nodes disagree on where a shard is.",
		}),
		relayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_client_relayed_total",
			Help: "Requests that were sent through another node, because the connection to the node they are for is broken or brings nothing. If it rises all the time, nodes advertise addresses that cannot be reached from here (--advertise-client-urls).",
		}),
	}
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "flotilla_client_operation_seconds",
		Help:    "Time from the start of an operation to its outcome, attempts and pauses between them included.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 17),
	}, []string{"op"})
	for _, c := range []prometheus.Collector{m.operations, m.attempts, m.lookups, m.relayed, seconds} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the client's metrics: %w; give each client of a process a Registerer of its own, by prometheus.WrapRegistererWith", err)
		}
	}
	for _, k := range kinds() {
		m.seconds[k] = seconds.WithLabelValues(k.String())
	}
	return m, nil
}

// ended counts an operation.
func (m *metrics) ended(k kind, started time.Time, err error) {
	if m == nil || k == none {
		return
	}
	m.seconds[k].Observe(time.Since(started).Seconds())
	m.operations.WithLabelValues(k.String(), outcomeOf(err)).Inc()
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, shard.ErrUnknownOutcome):
		return "unknown"
	default:
		return "failed"
	}
}

// attempted counts what a node's answer implied about the shard's location.
func (m *metrics) attempted(err error) {
	if m == nil || err == nil {
		return
	}
	var wrongShard *shard.WrongShardError
	var notLeader *shard.NotLeaderError
	var noReplica *shard.NoReplicaError
	reason := "other"
	switch {
	case errors.Is(err, shard.ErrUnknownOutcome):
		reason = "unknown"
	case errors.As(err, &wrongShard):
		reason = "wrong_shard"
	case errors.As(err, &notLeader):
		reason = "not_leader"
	case errors.As(err, &noReplica):
		reason = "no_replica"
	case errors.Is(err, shard.ErrOverloaded):
		reason = "overloaded"
	case errors.Is(err, shard.ErrUnavailable), errors.Is(err, shard.ErrStopped):
		reason = "unavailable"
	}
	m.attempts.WithLabelValues(reason).Inc()
}

// relays counts a request that is sent through another node.
func (m *metrics) relays() {
	if m != nil {
		m.relayed.Inc()
	}
}

// counted wraps a directory and counts its lookups: those that the cache could not answer.
func (m *metrics) counted(d router.Directory) router.Directory {
	if m == nil {
		return d
	}
	return countedDirectory{d, m}
}

type countedDirectory struct {
	router.Directory
	metrics *metrics
}

// Lookup implements router.Directory.
func (d countedDirectory) Lookup(ctx context.Context, key []byte) (*shard.Descriptor, error) {
	d.metrics.lookups.Inc()
	return d.Directory.Lookup(ctx, key)
}
