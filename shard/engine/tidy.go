package engine

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
)

// Removed data leaves the disk once a compaction moves its tombstone down to the data itself. Pebble compacts as
// levels fill up, so in a store that is no longer written to, tombstones stay where they are; the more so the fewer
// compactions its writes caused. Tidy then moves them down.

const (
	// tidyPart: Tidy does something only if at least an eighth of the stored data is removed. Moving tombstones down
	// rewrites the keys of all stored data, so in the worst case an eighth removed costs a full rewrite.
	tidyPart = 8
	// tidyBytes is the size of one piece, in bytes of tables of the last level. The levels above are compacted along
	// with it, so a piece rewrites about as much as any compaction of L0.
	tidyBytes = 64 << 20
	// historyBytes is the assumed size of what one range tombstone removes. The tombstone itself does not say.
	historyBytes = 4 << 20
)

// Tidy flushes the memtables. Then, if at least an eighth of the stored data is removed but still on disk, it
// compacts all keys that have tombstones, piece by piece. It calls goOn before each piece, which may take its time;
// if goOn returns false, Tidy stops and is not done. What remains can be seen from the tables, so Tidy can be called
// again at any time, also after a restart. The store can be used normally meanwhile.
func (e *Engine) Tidy(ctx context.Context, goOn func() bool) (done bool, err error) {
	if err := e.Sync(); err != nil {
		return false, fmt.Errorf("tidy store: %w", err)
	}
	levels, err := e.db.SSTables(pebble.WithProperties())
	if err != nil {
		return false, fmt.Errorf("tidy store: list tables: %w", err)
	}
	if removedBytes(levels)*tidyPart < e.storedBytes() {
		return true, nil
	}
	for _, piece := range pieces(levels, e.tidyBytes) {
		if !goOn() {
			return false, nil
		}
		if err := e.db.Compact(ctx, piece.Start, piece.End, false); err != nil {
			return false, fmt.Errorf("tidy store: %w", err)
		}
	}
	return true, nil
}

// storedBytes is how much space the tables, and the values they refer to, take on disk.
func (e *Engine) storedBytes() uint64 {
	total := e.db.Metrics().Total()
	return uint64(total.AggregateSize())
}

// removedBytes is how much data the tombstones remove, counting only tombstones above the last level.
func removedBytes(levels [][]pebble.SSTableInfo) (removed uint64) {
	for _, tables := range levels[:len(levels)-1] {
		for _, t := range tables {
			removed += t.Properties.RawPointTombstoneValueSize + t.Properties.NumRangeDeletions*historyBytes
		}
	}
	return removed
}

// pieces divides the data keys that may have tombstones into ranges. Each holds at most this many bytes of the last
// level's tables, or a single larger table.
func pieces(levels [][]pebble.SSTableInfo, bytes uint64) (out []pebble.KeyRange) {
	last := len(levels) - 1
	lower, upper := DataSpanBounds(shard.Everything())
	add := func(end []byte) {
		piece := pebble.KeyRange{Start: lower, End: end}
		if lower = end; comparer.Compare(piece.Start, end) < 0 && haveRemovals(levels[:last], piece) {
			out = append(out, piece)
		}
	}
	size := uint64(0)
	for _, t := range levels[last] {
		if start := t.Smallest.UserKey; size > 0 && size+t.Size > bytes && comparer.Compare(lower, start) < 0 && comparer.Compare(start, upper) < 0 {
			add(start)
			size = 0
		}
		size += t.Size
	}
	add(upper)
	return out
}

// haveRemovals reports whether a table with tombstones overlaps the range.
func haveRemovals(levels [][]pebble.SSTableInfo, r pebble.KeyRange) bool {
	for _, tables := range levels {
		for _, t := range tables {
			if t.Properties.NumDeletions > 0 && comparer.Compare(t.Smallest.UserKey, r.End) < 0 && comparer.Compare(r.Start, t.Largest.UserKey) <= 0 {
				return true
			}
		}
	}
	return false
}
