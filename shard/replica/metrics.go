package replica

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/shard/watch"
)

// Metrics of all replicas of a node.
type Metrics struct {
	proposals     prometheus.Histogram
	batchCommands prometheus.Histogram
	barrierReads  prometheus.Histogram
	leaderChanges prometheus.Counter
	watches       *watch.Metrics
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		watches: watch.NewMetrics(reg),
		proposals: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flotilla_shard_proposal_duration_seconds",
			Help: "Time from proposing a batch to having applied it. Rising: a slow disk or network between the shard's replicas.",
			// 0.25 ms to 4 s
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 15),
		}),
		batchCommands: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "flotilla_shard_proposal_commands",
			Help:    "Commands per log entry. It grows with load; near 1 under load means too many shards for the traffic.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		barrierReads: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "flotilla_shard_barrier_reads",
			Help:    "Linearizable reads served by one ReadIndex round.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		leaderChanges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_leader_changes_total",
			Help: "Leader changes seen by replicas on this node, all shards together. Bursts without moves: overload, slow disks or a bad network.",
		}),
	}
	reg.MustRegister(m.proposals, m.batchCommands, m.barrierReads, m.leaderChanges)
	return m
}
