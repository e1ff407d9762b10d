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
	stuck  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, size func() int64) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flotilla_raftlog_bytes",
		Help: "Size of the Raft log, all groups together: up to three times the entries that are kept for replicas that were away, and 100 MiB. All of it is read at a start.",
	}, func() float64 { return float64(size()) })
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
		stuck: f.NewGauge(prometheus.GaugeOpts{
			Name: "flotilla_raftlog_stuck",
			Help: "1 once a file of the Raft log could not be read: old files stay from then on, and the node will not start again. Replace it while it runs (flotilla node decommission), and doubt its disk.",
		}),
	}
}
