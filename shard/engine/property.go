package engine

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/flotilla-kv/flotilla/shard"
)

// revisionProperty names the block property that holds a block's interval of revisions. It is recorded in every
// table, so it can never change.
const revisionProperty = "flotilla.revision"

// revisionMapper maps a data key to the interval of its one revision, and ignores all other keys. It must depend on
// the key alone, because the value may be stored elsewhere.
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

// RevisionFilter returns iterator filters that skip tables and blocks without any revision in (after, upTo]. They
// work block by block, so the caller must still check each revision.
//
// A removal of a version (Pebble's own tombstone) maps to the revision that it removes, so for revisions inside the
// interval the filter either shows both or hides both.
func RevisionFilter(after, upTo shard.Revision) []pebble.BlockPropertyFilter {
	// One spare slot, because Pebble appends to the slice.
	fs := make([]pebble.BlockPropertyFilter, 0, 2)
	return append(fs, sstable.NewBlockIntervalFilter(revisionProperty, uint64(after)+1, uint64(upTo)+1, nil))
}

// flagsByte is the position of the flags in a data value. The lowest three bits can be read without the value: Pebble
// may store old values apart from their keys, but keeps these bits with the key.
const flagsByte = 1

func shortAttribute(key []byte, _ int, value []byte) (pebble.ShortAttribute, error) {
	if len(key) == 0 || key[0] != dataTag || len(value) <= flagsByte {
		return 0, nil
	}
	return pebble.ShortAttribute(value[flagsByte] & 7), nil
}

// Flags returns the lowest three flag bits of the data value at the iterator. It reads the value only if it is stored
// beside its key.
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
