package engine

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/flotilla-kv/flotilla/shard"
)

// revisionProperty names the block property that holds the interval of revisions
// in a block. It is recorded in every table, so it can never change.
const revisionProperty = "flotilla.revision"

// revisionMapper gives data keys the interval of their one revision and ignores all
// others. It must depend on the key alone: a value may be stored elsewhere.
type revisionMapper struct{}

func (revisionMapper) MapPointKey(k pebble.InternalKey, _ []byte) (sstable.BlockInterval, error) {
	_, rev, ok := DecodeDataKey(k.UserKey)
	if !ok {
		return sstable.BlockInterval{}, nil
	}
	return sstable.BlockInterval{Lower: uint64(rev), Upper: uint64(rev) + 1}, nil
}

func (revisionMapper) MapRangeKeys(sstable.Span) (sstable.BlockInterval, error) {
	return sstable.BlockInterval{}, nil
}

func newRevisionCollector() pebble.BlockPropertyCollector {
	return sstable.NewBlockIntervalCollector(revisionProperty, revisionMapper{}, nil)
}

// RevisionFilter returns iterator filters that skip tables and blocks without any
// revision in (after, upTo]. What they let through must be filtered again.
//
// A removed version (Pebble's own tombstone) maps to the revision it removes, so
// for revisions inside the interval the filter shows both or hides both.
func RevisionFilter(after, upTo shard.Revision) []pebble.BlockPropertyFilter {
	// One spare slot: Pebble appends to the slice.
	fs := make([]pebble.BlockPropertyFilter, 0, 2)
	return append(fs, sstable.NewBlockIntervalFilter(revisionProperty, uint64(after)+1, uint64(upTo)+1, nil))
}

// flagsByte is where a data value keeps its flags, of which the lowest three bits
// can be read without the value: Pebble may store old values apart from their keys,
// and keeps these bits with the key.
const flagsByte = 1

func shortAttribute(key []byte, _ int, value []byte) (pebble.ShortAttribute, error) {
	if len(key) == 0 || key[0] != dataTag || len(value) <= flagsByte {
		return 0, nil
	}
	return pebble.ShortAttribute(value[flagsByte] & 7), nil
}

// Flags returns the lowest three flag bits of the data value at the iterator,
// reading the value only when it lies beside its key.
func Flags(it *pebble.Iterator) (byte, error) {
	lazy := it.LazyValue()
	if a, ok := lazy.TryGetShortAttribute(); ok {
		return byte(a), nil
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return 0, err
	}
	if len(v) <= flagsByte {
		return 0, shard.ErrCorrupt
	}
	return v[flagsByte] & 7, nil
}
