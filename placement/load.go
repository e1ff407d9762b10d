package placement

import (
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// Load is what nodes have reported, as the planner sees it at one moment. Missing values are
// unknown: Plan neither guesses them nor acts without them.
type Load struct {
	// Since is when the collection of reports began. A node that was not heard of counts as silent since then, so
	// that a new collector does not declare a node dead too early.
	Since  time.Time
	Nodes  map[shard.NodeID]NodeLoad
	Shards map[shard.ID]ShardLoad
	// InFlight are steps that were started and have neither ended nor been abandoned, besides the
	// operators in the map (Map.Operators), which need not be listed. The outcomes of both count as
	// achieved, so that the same gap is not filled twice.
	InFlight []Step
}

// NodeLoad is a node's report on itself.
type NodeLoad struct {
	// Heard is when the report arrived, by the clock of whoever calls Plan.
	Heard time.Time
	// DiskTotal and DiskFree are bytes; a total of 0 is unknown, and nothing is put on such a node.
	DiskTotal, DiskFree int64
	// Fsync is the recent duration of a slow fsync (99th percentile of a minute); 0 is unknown.
	Fsync time.Duration
	// ClockOff says that the node may not propose, because its clock is too far from the others'.
	ClockOff bool
}

// ShardLoad is what a shard's leader reports. Rates are per second, averaged over a
// minute or so.
type ShardLoad struct {
	Heard time.Time
	// Leader is the node that leads; 0 when unknown.
	Leader shard.NodeID
	// Bytes and Keys are of one replica.
	Bytes, Keys int64

	Writes, WriteBytes, Reads float64
	// PeakWrites and PeakWriteBytes are the peaks of these rates within the time that merges wait
	// (Rules.MergeWait).
	PeakWrites, PeakWriteBytes float64

	// Middle divides the bytes in half, Balance the writes.
	Middle, Balance SplitPoint
	// SpanSince is since when the figures describe the shard's present span: when the span changed, or its leader
	// began to measure. Zero: the leader has only just begun to lead, and nothing is planned by its figures.
	SpanSince time.Time
	// Behind is how many log entries each replica has yet to apply, by node. A replica that is not
	// listed is unknown.
	Behind map[shard.NodeID]uint64
	// Unfit gives the reason for replicas that serve nothing and must be replaced, by node. They
	// are not in Behind.
	Unfit map[shard.NodeID]string
}

// SplitPoint is a possible split key of a shard.
type SplitPoint struct {
	// Key is the first key of the right half; empty when unknown.
	Key []byte
	// Left is the share of the left half, 0 to 1.
	Left float64
}
