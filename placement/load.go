package placement

import (
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// Load is what nodes have reported, as the planner sees it at one moment. What is
// missing is missing: Plan neither guesses nor acts on what it was not told.
type Load struct {
	// Since is when reports began to be collected. A node that was not heard of counts
	// as silent since then, so a new collector calls nobody dead before its time.
	Since  time.Time
	Nodes  map[shard.NodeID]NodeLoad
	Shards map[shard.ID]ShardLoad
	// InFlight are steps that were begun and neither ended nor were given up, besides the
	// operators in the map (Map.Operators), which need not be named. The outcome of both
	// is counted as if it had come: so the same gap is not filled twice.
	InFlight []Step
}

// NodeLoad is a node's report on itself.
type NodeLoad struct {
	// Heard is when the report arrived, by the clock of whoever calls Plan.
	Heard time.Time
	// DiskTotal and DiskFree are bytes; a total of 0 is unknown, and nothing is put
	// on such a node.
	DiskTotal, DiskFree int64
	// Fsync is what a slow one took lately (99th percentile of a minute); 0 is unknown.
	Fsync time.Duration
	// ClockOff says that the node's clock is too far from others' for it to propose.
	ClockOff bool
}

// ShardLoad is what a shard's leader reports. Rates are per second, averaged over a
// minute or so.
type ShardLoad struct {
	Heard time.Time
	// Leader is the node that leads; 0 when nobody is known to.
	Leader shard.NodeID
	// Bytes and Keys are of one replica.
	Bytes, Keys int64

	Writes, WriteBytes, Reads float64
	// PeakWrites and PeakWriteBytes are the highest such rates within the time that
	// merges wait (Rules.MergeWait).
	PeakWrites, PeakWriteBytes float64

	// Middle divides the bytes, Balance the writes.
	Middle, Balance SplitPoint
	// SpanSince is since when the figures speak of the span that the shard has: it changed
	// then, or its leader began to measure. Zero: it has only just come to lead, and nothing
	// is planned by its figures.
	SpanSince time.Time
	// Behind is how many log entries each replica has yet to apply, by node. A replica
	// that is not listed is unknown.
	Behind map[shard.NodeID]uint64
	// Unfit says of replicas that serve nothing and have to be replaced why, by node. They
	// are not among those Behind.
	Unfit map[shard.NodeID]string
}

// SplitPoint is where a shard could be cut.
type SplitPoint struct {
	// Key is the first key of the right half; empty when none is known.
	Key []byte
	// Left is the share of the left half, 0 to 1.
	Left float64
}
