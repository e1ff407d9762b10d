package replica

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/shard/watch"
)

// Metrics of all replicas of a node.
type Metrics struct {
	proposals     prometheus.Histogram
	batchCommands prometheus.Histogram
	held          prometheus.Counter
	barrierReads  prometheus.Histogram
	promised      prometheus.Histogram
	reservations  prometheus.Counter
	leaderChanges prometheus.Counter
	elections     *prometheus.CounterVec
	handovers     prometheus.Histogram
	watches       *watch.Metrics
	leaseRenewals prometheus.Counter
	leasesDue     prometheus.Counter
	sent          prometheus.Counter
	unfit         prometheus.Gauge
	summed        prometheus.Counter

	// Collecting garbage, under etcd's names where it has them.
	dropped       prometheus.Counter
	droppedBytes  prometheus.Counter
	histories     prometheus.Counter
	looked        prometheus.Counter
	steps         prometheus.Histogram
	walks         prometheus.Histogram
	lastWalk      prometheus.Gauge
	compacted     prometheus.Gauge
	shardsWaiting prometheus.Gauge
	lag           prometheus.Gauge
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
		held: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_proposals_held_total",
			Help: "Batches that waited up to 20 ms, and up to 100 ms if they were many and small, for more commands because the machine had no processor left. Rising for long: the node needs more processors, or fewer shards that lead.",
		}),
		barrierReads: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "flotilla_shard_barrier_reads",
			Help:    "Linearizable reads served by one ReadIndex round.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		promised: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flotilla_shard_promise_duration_seconds",
			Help: "Time until a leader on this node has promised what watches of several shards wait for. Their events are late by as much. Rising: writes of that leader's shards are slow (flotilla_shard_proposal_duration_seconds), or need a log entry each time (flotilla_shard_reservations_total).",
			// 16 µs to 0.5 s
			Buckets: prometheus.ExponentialBuckets(1.0/(1<<16), 2, 16),
		}),
		reservations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_reservations_total",
			Help: "Log entries that leaders on this node wrote to be able to promise. At most eight a second for each shard that is watched together with others. About as many as promises (flotilla_shard_promise_duration_seconds_count): clocks of nodes are far apart, or leaders change all the time.",
		}),
		handovers: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "flotilla_shard_handover_pause_seconds",
			Help:    "For how long a leader on this node has proposed nothing, until another replica led. Above 0.05: disks or the network between nodes are slow, or processors are short.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
		leaderChanges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_leader_changes_total",
			Help: "Leader changes seen by replicas on this node, all shards together. Bursts without moves: overload, slow disks or a bad network.",
		}),
		elections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flotilla_shard_elections_total",
			Help: "Elections that replicas on this node won, by what they came after: start, the replica had known no leader yet; handover, the leader gave its place to this one; failure, the leader was lost, and leases get their whole TTL again. failure without a node that stopped: overload, slow disks or a bad network.",
		}, []string{"after"}),
		leaseRenewals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_lease_renewals_total",
			Help: "Lease keepalives this node has acknowledged as the leader of the lease's shard.",
		}),
		leasesDue: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_leases_due_total",
			Help: "Leases this node found expired and set out to revoke, repeated attempts included. Bursts: clients are gone, or cannot reach the leaders in time.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_shard_snapshot_sent_bytes_total",
			Help: "Bytes of whole shards sent to replicas on other nodes. Rising without moves: replicas fall so far behind that the log does not do; look for slow or restarting nodes.",
		}),
	}
	m.unfit = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flotilla_shard_replicas_unfit",
		Help: "Replicas on this node that serve nothing and have to be replaced, because they missed a split or hold other data than the others. They are replaced within a minute unless the balancer is off or the shard is locked; flotilla shard show says why.",
	})
	m.summed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "flotilla_shard_checksum_bytes_total",
		Help: "Bytes of keys and values that this node has read to compare its replicas with the others'. It costs a tenth of a processor at most; --corrupt-check-time says how often.",
	})
	reg.MustRegister(m.summed, m.unfit, m.sent, m.proposals, m.batchCommands, m.held, m.barrierReads, m.promised, m.reservations, m.leaderChanges, m.elections, m.handovers, m.leaseRenewals, m.leasesDue)
	for _, after := range []string{afterStart, afterHandover, afterFailure} {
		m.elections.WithLabelValues(after) // shown before the first one too
	}
	m.registerCollection(reg)
	return m
}

func (m *Metrics) registerCollection(reg prometheus.Registerer) {
	m.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "etcd_debugging_mvcc_db_compaction_keys_total",
		Help: "Superseded versions removed by replicas on this node after compactions. Flat while the store grows: history is kept longer than meant (--history-retention, Compact), or the node is behind (flotilla_history_shards_waiting).",
	})
	m.droppedBytes = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "flotilla_history_dropped_bytes_total",
		Help: "Size of the keys and values removed after compactions, uncompressed. The disk gets it back some minutes later, when the store has rewritten the files.",
	})
	m.histories = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "flotilla_history_cut_total",
		Help: "Times that all older versions of a key were removed at once, because it had hundreds. They are in none of the other figures. Rising fast: some keys are overwritten all the time; a shorter --history-retention keeps the store smaller.",
	})
	m.looked = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "flotilla_history_versions_looked_at_total",
		Help: "Versions looked at to find those to remove. Many times etcd_debugging_mvcc_db_compaction_keys_total: new or restored replicas go over all their keys once; otherwise keys are written that are hardly ever overwritten.",
	})
	m.steps = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
		Help: "Time of one step of removing superseded versions; the sum is all the time spent. Steps are meant to take half a millisecond: longer ones mean a busy machine or a slow disk.",
		// 0.25 ms to 1 s
		Buckets: prometheus.ExponentialBuckets(0.25, 2, 13),
	})
	m.walks = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
		Help: "Time from beginning to remove what a compaction lets go of one shard until it is done, the rests included.",
		// 1 ms to half an hour
		Buckets: prometheus.ExponentialBuckets(1, 4, 11),
	})
	m.lastWalk = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "etcd_debugging_mvcc_db_compaction_last",
		Help: "Unix time at which a shard's superseded versions were last all removed; 0 since the start of the node. Old while flotilla_history_shards_waiting is not 0: look into the log for why it fails.",
	})
	m.compacted = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "etcd_debugging_mvcc_compact_revision",
		Help: "Highest compacted revision that replicas on this node have applied: below it nothing can be read. Not rising with --history-retention set: the meta group has no leader or its clock is not trusted.",
	})
	m.shardsWaiting = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flotilla_history_shards_waiting",
		Help: "Replicas on this node that have superseded versions of a compaction still to remove. It should be back at 0 before the next compaction; if it never is, more is overwritten than this node can clean up beside its other work.",
	})
	m.lag = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flotilla_history_lag_seconds",
		Help: "History, in time, that compactions let go and the replica furthest behind still holds; -1 when that is all it has. It should be back at 0 before the next compaction.",
	})
	reg.MustRegister(m.dropped, m.droppedBytes, m.histories, m.looked, m.steps, m.walks, m.lastWalk, m.compacted, m.shardsWaiting, m.lag)
}
