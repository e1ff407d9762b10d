package engine

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
)

// What is removed leaves the disk when a compaction brings the removal down to what it removes. Pebble
// compacts as levels fill up, so in a store into which nothing is written any more removals stay where they
// are, and the fewer compactions a write costs, the more of them. Then they are brought down from here.

const (
	// tidyPart of what is stored has to be removed for it to be worth bringing removals down: that
	// rewrites the keys of all that is stored, and may be, at worst, for each of eight removals of an eighth.
	tidyPart = 8
	// tidyBytes of tables are a piece. What is above comes along, so it is about as much as any
	// compaction of L0 rewrites.
	tidyBytes = 64 << 20
	// historyBytes is what one removal of many versions at once is taken to remove. It does not tell.
	historyBytes = 4 << 20
)

// Tidy writes out what is in memory and then, if at least an eighth of what is stored is removed but on
// disk, compacts all keys that have removals, piece by piece. Before each goOn is asked, which may take its
// time; if it says no, Tidy is not done. What is left to do the tables tell, so it can be called again at any
// time, also after a restart. Everything else may happen in the store meanwhile.
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

// storedBytes is what tables and the values that they refer to take on disk.
func (e *Engine) storedBytes() uint64 {
	total := e.db.Metrics().Total()
	return uint64(total.AggregateSize())
}

// removedBytes is how much the removals speak of that have something below them.
func removedBytes(levels [][]pebble.SSTableInfo) (removed uint64) {
	for _, tables := range levels[:len(levels)-1] {
		for _, t := range tables {
			removed += t.Properties.RawPointTombstoneValueSize + t.Properties.NumRangeDeletions*historyBytes
		}
	}
	return removed
}

// pieces divides those data keys that may have removals. Each piece is a range with so many bytes of the
// last level's tables, at most, or one of them.
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

// haveRemovals reports whether a table with removals overlaps with the range.
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
