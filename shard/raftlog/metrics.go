package raftlog

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	syncs  prometheus.Histogram
	bytes  prometheus.Counter
	lazily prometheus.Counter
	moved  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		syncs: f.NewHistogram(prometheus.HistogramOpts{
			Name: "etcd_disk_wal_fsync_duration_seconds",
			Help: "Time to write entries of all groups to the Raft log and sync it. p99 above 10 ms slows every write; look at the disk.",
			// 0.1 ms to 3 s
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		bytes: f.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_raftlog_written_bytes_total",
			Help: "Bytes written to the Raft log, all groups together, with what was moved.",
		}),
		lazily: f.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_raftlog_unsynced_writes_total",
			Help: "Writes to the Raft log that held nothing Raft has to wait for (commit indexes), and so cost no sync.",
		}),
		moved: f.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_raftlog_moved_bytes_total",
			Help: "Bytes written to the Raft log again because the file they were in had little else that counted. Most of what is written means shards that let go of old entries at very different paces.",
		}),
	}
}
