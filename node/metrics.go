package node

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/flotilla-kv/flotilla/placement"
)

// balancerMetrics count what the node has done as leader of the meta group. Sum them over all nodes; one leads at a
// time.
type balancerMetrics struct {
	begun, refused, finished *prometheus.CounterVec
	failed                   prometheus.Counter
	paused                   prometheus.Gauge
	gap                      *prometheus.GaugeVec
}

func newBalancerMetrics(reg prometheus.Registerer) *balancerMetrics {
	f := promauto.With(reg)
	return &balancerMetrics{
		begun: f.NewCounterVec(prometheus.CounterOpts{
			Name: "flotilla_balancer_steps_begun_total",
			Help: "Steps of plans that this node began, by kind. Many of one kind without end: flotilla rebalance plan says why.",
		}, []string{"step"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "flotilla_balancer_steps_refused_total",
			Help: "Steps of plans that could not begin, by kind: the shard had changed meanwhile, or a replica did not answer. A few are normal; rising: see the node's log.",
		}, []string{"step"}),
		finished: f.NewCounterVec(prometheus.CounterOpts{
			Name: "flotilla_operators_finished_total",
			Help: "Moves, splits and merges that this node brought to their end, by kind. Not rising while flotilla operator ls lists some: the node's log says what they wait for.",
		}, []string{"kind"}),
		failed: f.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_balancer_rounds_failed_total",
			Help: "Rounds of the balancer that came to nothing because the placement table could not be read. flotilla rebalance status tells the last error.",
		}),
		paused: f.NewGauge(prometheus.GaugeOpts{
			Name: "flotilla_balancer_paused",
			Help: "1 on the node that leads the meta group while the balancer is paused: lost replicas are not replaced. flotilla rebalance resume ends it.",
		}),
		gap: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "flotilla_balancer_gap_ratio",
			Help: "By how much the node with most has more than the one with least, as a share of the mean, by measure; from the node that leads the meta group. Above the setting balance-gap for long: flotilla rebalance plan says what stands in the way.",
		}, []string{"measure"}),
	}
}

// decided exports the results of a plan.
func (m *balancerMetrics) decided(d *placement.Decision) {
	m.gap.Reset() // some measures may have become unknown
	for _, g := range d.Gaps {
		m.gap.WithLabelValues(g.Measure).Set(g.Share)
	}
}

// rests clears the gauges on a node that does not balance.
func (m *balancerMetrics) rests() {
	m.paused.Set(0)
	m.gap.Reset()
}

// exportMemory exports the memory use and bounds of the node's parts.
func exportMemory(reg prometheus.Registerer, budget int64, parts []memoryPart) {
	f := promauto.With(reg)
	f.NewGauge(prometheus.GaugeOpts{
		Name: "flotilla_memory_budget_bytes",
		Help: "What the node should take of memory, about (--memory). Resident memory above it: what takes it is in flotilla_memory_bytes or in Go's heap (/debug/pprof/heap).",
	}).Set(float64(budget))
	bounds := f.NewGaugeVec(prometheus.GaugeOpts{
		Name: "flotilla_memory_bound_bytes",
		Help: "What each part of the node may take of memory. They grow with --memory.",
	}, []string{"part"})
	for _, p := range parts {
		bounds.WithLabelValues(p.name).Set(float64(p.bound))
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "flotilla_memory_bytes", ConstLabels: prometheus.Labels{"part": p.name},
			Help: "What each part of the node takes of memory, about. At its bound: headers, rows and the store's cache work less well than they would with more (--memory); others are stored, or refused, earlier.",
		}, p.used)
	}
}

// memoryPart is a part that counts its memory.
type memoryPart struct {
	name  string
	bound int64
	used  func() float64
}
