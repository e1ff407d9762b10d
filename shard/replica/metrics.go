package replica

import "github.com/prometheus/client_golang/prometheus"

// Metrics of all replicas of a node.
type Metrics struct {
	proposals     prometheus.Histogram
	batchCommands prometheus.Histogram
	barrierReads  prometheus.Histogram
	leaderChanges prometheus.Counter
	leaseRenewals prometheus.Counter
	leasesDue     prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
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
		leaseRenewals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_lease_renewals_total",
			Help: "Lease keepalives this node has acknowledged as the leader of the lease's shard.",
		}),
		leasesDue: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_leases_due_total",
			Help: "Leases this node found expired and set out to revoke, repeated attempts included. Bursts: clients are gone, or cannot reach the leaders in time.",
		}),
	}
	reg.MustRegister(m.proposals, m.batchCommands, m.barrierReads, m.leaderChanges, m.leaseRenewals, m.leasesDue)
	return m
}
