package admission

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics of a node's admission; nil if they are not exported.
type Metrics struct {
	refusals *prometheus.CounterVec
	waiting  prometheus.Gauge
	wait     prometheus.Histogram

	answersWaiting prometheus.Gauge
	disconnects    prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		refusals: f.NewCounterVec(prometheus.CounterOpts{
			Name: "flotilla_admission_refused_total",
			Help: "Requests that this node refused as too many, by class and reason. room: it has more requests under way than it has memory for; memory: it has none left (docs: how much memory a node takes); answers: large answers wait for clients to take them, and there is no room for another, or for what a write would answer; queue and wait: a shard takes fewer writes than come. Rising: clients ask for more than the cluster can do; split the shards that are busy or add nodes.",
		}, []string{"class", "reason"}),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Name: "flotilla_admission_writes_waiting",
			Help: "Writes that wait on this node until their shard may be sent them. Above 0 for long: the shards are slower than clients write, or one has no leader.",
		}),
		wait: f.NewHistogram(prometheus.HistogramOpts{
			Name: "flotilla_admission_wait_seconds",
			Help: "How long writes waited that could not be sent to their shard at once. Near 3 s, others are being refused.",
			// 1 ms to 4 s
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13),
		}),
		answersWaiting: f.NewGauge(prometheus.GaugeOpts{
			Name: "flotilla_admission_answers_waiting",
			Help: "Reads of much data that wait on this node until there is room for their answers. Above 0 for long: clients ask for more at once than they take, or the node than its memory allows; have them list with limits, or give the node more (--memory).",
		}),
		disconnects: f.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_admission_slow_clients_disconnected_total",
			Help: "Clients that this node disconnected because they took less than 1 MiB a second of a large answer while others waited for room. Rising: look for clients that hang, or that list over slow networks; have these list with limits.",
		}),
	}
}

func (m *Metrics) refused(c Class, reason string) {
	if m != nil {
		m.refusals.WithLabelValues(c.String(), reason).Inc()
	}
}

func (m *Metrics) waits(more float64) {
	if m != nil {
		m.waiting.Add(more)
	}
}

func (m *Metrics) waited(d time.Duration) {
	if m != nil {
		m.wait.Observe(d.Seconds())
	}
}

func (m *Metrics) answersWait(more float64) {
	if m != nil {
		m.answersWaiting.Add(more)
	}
}

func (m *Metrics) disconnected() {
	if m != nil {
		m.disconnects.Inc()
	}
}
