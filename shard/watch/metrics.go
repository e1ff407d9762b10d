package watch

import "github.com/prometheus/client_golang/prometheus"

// Metrics of the hubs of all replicas of a node.
type Metrics struct {
	subscriptions prometheus.Gauge
	events        prometheus.Counter
	historyReads  prometheus.Counter
	fellBehind    prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flotilla_watch_subscriptions",
			Help: "Feeds of changes open at this node's replicas; a watch over several shards has one at each. Rising without more clients: clients leave watches open.",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_watch_events_total",
			Help: "Changes kept in memory for feeds, each once however many watch. Shards that nobody watches count nothing.",
		}),
		historyReads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_watch_history_reads_total",
			Help: "Pieces of history that feeds read from the store. Some when watches begin in the past; many while none begin: see flotilla_watch_fell_behind_total.",
		}),
		fellBehind: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_watch_fell_behind_total",
			Help: "Times that a live feed was asked so late that what it missed was no longer in memory. Rising: clients or the network are too slow for what they watch; let them watch less or run more of them.",
		}),
	}
	reg.MustRegister(m.subscriptions, m.events, m.historyReads, m.fellBehind)
	return m
}
