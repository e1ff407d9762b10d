package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
)

// SpanSize estimates how many bytes the span takes on disk. What is only in memory does not count.
func (e *Engine) SpanSize(span shard.Span) (uint64, error) {
	if span.Empty() {
		return 0, nil
	}
	lower, upper := DataSpanBounds(span)
	n, err := e.db.EstimateDiskUsage(lower, upper)
	if err != nil {
		return 0, fmt.Errorf("estimate size of %s: %w", span, err)
	}
	return n, nil
}

// SpanVersions estimates how many versions of the span's keys are on disk, including history and removed versions
// that were not compacted away yet.
func (e *Engine) SpanVersions(span shard.Span) (int64, error) {
	if span.Empty() {
		return 0, nil
	}
	lower, upper := DataSpanBounds(span)
	levels, err := e.db.SSTables(pebble.WithProperties(), pebble.WithKeyRangeFilter(lower, upper), pebble.WithApproximateSpanBytes())
	if err != nil {
		return 0, fmt.Errorf("estimate the number of versions of %s: %w", span, err)
	}
	versions := 0.0
	for _, tables := range levels {
		for _, t := range tables {
			if t.Size > 0 && t.Properties != nil {
				versions += float64(t.Properties.NumEntries) * min(float64(t.ApproximateSpanBytes)/float64(t.Size), 1)
			}
		}
	}
	return int64(versions), nil
}

const (
	// middleLooks bounds the search for a middle. Each look halves the distance between two existing keys, read as
	// numbers.
	middleLooks = 32
	// middleTolerance: a middle may be off by at most one part in this many of the whole.
	middleTolerance = 16
)

// SpanMiddle returns the first key of the right half of the span, measured in bytes, and the share that lies left of
// it. The key is nil if there is none: too little is on disk, or a single key takes all of it.
func (e *Engine) SpanMiddle(span shard.Span) (key []byte, left float64, err error) {
	total, err := e.SpanSize(span)
	if err != nil || total == 0 {
		return nil, 0, err
	}
	lower, upper := DataSpanBounds(span)
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, 0, fmt.Errorf("find the middle of %s: %w", span, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	low, high := keyAt(it, it.First()), keyAt(it, it.Last())
	best := total + 1 // how far the best key so far is off
	for look := 0; look < middleLooks && best > total/middleTolerance; look++ {
		middle := between(low, high)
		if middle == nil {
			break
		}
		before, err := e.SpanSize(shard.Span{Start: span.Start, End: middle})
		if err != nil {
			return nil, 0, err
		}
		before = min(before, total)
		after := keyAt(it, it.SeekGE(DataPrefix(middle)))
		if off := max(2*before, total) - min(2*before, total); off < best {
			best, key, left = off, after, float64(before)/float64(total)
		}
		// Existing keys become the new bounds, so that no look is wasted on a gap.
		if 2*before > total {
			high = keyAt(it, it.SeekLT(DataPrefix(middle)))
		} else {
			low = after
		}
	}
	return key, left, it.Error()
}

// keyAt returns the user's key at the iterator, or nil if the iterator is not valid.
func keyAt(it *pebble.Iterator, valid bool) []byte {
	if !valid {
		return nil
	}
	key, _, _ := DecodeDataKey(it.Key())
	return bytes.Clone(key)
}

// between returns a key about halfway between two keys, or nil if they are too close.
func between(low, high []byte) []byte {
	common := 0
	for common < min(len(low), len(high)) && low[common] == high[common] {
		common++
	}
	a, b := numberAt(low, common), numberAt(high, common)
	if b == a+1 { // these bytes are adjacent, but there may be room after them
		common += 8
		a, b = numberAt(low, common), math.MaxUint64
	}
	if b < a || b-a < 2 {
		return nil
	}
	middle := make([]byte, common, common+8)
	copy(middle, low)
	middle = binary.BigEndian.AppendUint64(middle, a+(b-a)/2)
	return bytes.TrimRight(middle, "\x00")
}

// numberAt reads eight bytes of a key as a number. Missing bytes count as zero.
func numberAt(key []byte, at int) uint64 {
	var next [8]byte
	copy(next[:], key[min(at, len(key)):])
	return binary.BigEndian.Uint64(next[:])
}
