package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// newPauses measures how long nobody served keys that went from one shard to another.
func newPauses(reg prometheus.Registerer) *prometheus.HistogramVec {
	pauses := promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{
		Name:    "flotilla_reshape_pause_seconds",
		Help:    "For how long nobody served the keys that a split or merge took from one shard to another, by kind. A split counts on the node that led the shard, a merge on the one that leads the meta group. Above 0.05: disks or the network between nodes are slow, or processors are short.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
	}, []string{"kind"})
	for _, kind := range []placementpb.OperatorKind{placementpb.OperatorKind_SPLIT, placementpb.OperatorKind_MERGE} {
		pauses.WithLabelValues(kind.String()) // visible before the first observation
	}
	return pauses
}

// paused records how long nobody served keys.
func (n *Node) paused(by placementpb.OperatorKind, since time.Time) time.Duration {
	took := time.Since(since)
	n.pauses.WithLabelValues(by.String()).Observe(took.Seconds())
	return took
}
