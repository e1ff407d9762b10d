package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// pauses shows for how long nobody served keys that went from one shard to another, and what took that long.
type pauses struct {
	whole *prometheus.HistogramVec // by kind
	parts *prometheus.HistogramVec // by kind and part
}

func newPauses(reg prometheus.Registerer) pauses {
	with, buckets := promauto.With(reg), prometheus.ExponentialBuckets(0.001, 2, 12)
	p := pauses{
		whole: with.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "flotilla_reshape_pause_seconds",
			Help:    "For how long nobody served the keys that a split or merge took from one shard to another, by kind. A split counts on the node that led the shard, a merge on the one that leads the meta group. Above 0.05: disks or the network between nodes are slow, or processors are short.",
			Buckets: buckets,
		}, []string{"kind"}),
		parts: with.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "flotilla_reshape_part_seconds",
			Help:    "What flotilla_reshape_pause_seconds is made of, by kind and part. A merge's flush is part of its \"durable\", and is told by each node that did it; the other parts follow one another. If \"durable\" or \"flush\" is most of it, disks are slow; otherwise the network is, or processors are short.",
			Buckets: buckets,
		}, []string{"kind", "part"}),
	}
	for kind, parts := range map[placementpb.OperatorKind][]string{
		placementpb.OperatorKind_SPLIT: {partSeeds, partBegun},
		placementpb.OperatorKind_MERGE: {partFrozen, partDurable, partFlush, partCommitted, partSubsumed},
	} {
		p.whole.WithLabelValues(kind.String()) // shown before the first
		for _, part := range parts {
			p.parts.WithLabelValues(kind.String(), part)
		}
	}
	return p
}

// The parts of pauses, by how they end.
const (
	partSeeds = "seeds" // the nodes have left their seeds
	partBegun = "begun" // the child serves

	partFrozen    = "frozen"    // the leader of the right shard has applied FREEZE
	partDurable   = "durable"   // all its replicas have, and that is durable
	partFlush     = "flush"     // of that, what a node took to make it durable when it had applied it
	partCommitted = "committed" // the table gives the left shard the keys
	partSubsumed  = "subsumed"  // it serves them
)

// begin begins to measure a pause.
func (p pauses) begin(of placementpb.OperatorKind) *paused {
	now := time.Now()
	return &paused{pauses: p, kind: of.String(), began: now, part: now}
}

// paused is a pause that is being measured.
type paused struct {
	pauses      pauses
	kind        string
	began, part time.Time
	told        []any // for the log
}

// pass notes that a part of it is over.
func (p *paused) pass(part string) {
	now := time.Now()
	took := now.Sub(p.part)
	p.part = now
	p.told = append(p.told, part, took)
	p.pauses.parts.WithLabelValues(p.kind, part).Observe(took.Seconds())
}

// end notes how long it was, and returns that and its parts for the log.
func (p *paused) end() []any {
	took := time.Since(p.began)
	p.pauses.whole.WithLabelValues(p.kind).Observe(took.Seconds())
	return append([]any{"pause", took}, p.told...)
}
