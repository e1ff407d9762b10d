package engine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
)

// Everything that a Replace changes besides versions lies outside the range that it excises. It goes into separate
// tables, so that a later Replace of the span need not cut them. Such a table holds range tombstones for the old
// records, which do not affect keys in the same table, and then the new records.

// Attach records that a key of the span is attached to a lease.
func (w *SSTWriter) Attach(lease int64, key []byte) {
	w.attached = append(w.attached, AttachedKey(lease, key))
}

// writeRecords writes the records that replace the span's leases, and the local records.
func (w *SSTWriter) writeRecords(records []KV) error {
	lower, upper := LeaseSpanBounds(w.span)
	var leases, local []KV
	for _, kv := range records {
		if lease, ok := decodeLeaseKey(kv.Key); ok {
			if !w.span.Contains(shard.HomeKey(lease)) {
				return fmt.Errorf("lease %x lives outside of the span: %w", lease, shard.ErrCorrupt)
			}
			leases = append(leases, kv)
			continue
		}
		if _, err := decodeLocalKey(kv.Key); err != nil {
			return err
		}
		local = append(local, kv)
	}
	if err := w.writeTable([]pebble.KeyRange{{Start: lower, End: upper}}, leases); err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	if len(local) == 0 {
		return nil
	}
	if err := w.writeTable(nil, local); err != nil {
		return fmt.Errorf("write local records: %w", err)
	}
	return nil
}

// writeAttached replaces the attached keys of the span. They are ordered by lease, so every lease with attached keys
// in the span has to be looked up.
func (w *SSTWriter) writeAttached() error {
	old, err := w.e.attachedRanges(w.span)
	if err != nil {
		return fmt.Errorf("list attached keys: %w", err)
	}
	if len(old)+len(w.attached) == 0 {
		return nil
	}
	kvs := make([]KV, len(w.attached))
	for i, k := range w.attached {
		kvs[i] = KV{Key: k, Value: []byte{}}
	}
	if err := w.writeTable(old, kvs); err != nil {
		return fmt.Errorf("write attached keys: %w", err)
	}
	return nil
}

// attachedRanges returns, in order, ranges that enclose every AttachedKey of the span and no other key.
func (e *Engine) attachedRanges(span shard.Span) (out []pebble.KeyRange, err error) {
	all, end := attachedTagBounds()
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: all, UpperBound: end})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for valid := it.First(); valid; {
		lease, _, ok := DecodeAttachedKey(it.Key())
		if !ok {
			return nil, fmt.Errorf("key %x: %w", it.Key(), shard.ErrCorrupt)
		}
		lower, upper := AttachedBounds(lease, span)
		if it.SeekGE(lower) && comparer.Compare(it.Key(), upper) < 0 {
			out = append(out, pebble.KeyRange{Start: lower, End: upper})
		}
		_, next := AttachedBounds(lease, shard.Everything())
		valid = it.SeekGE(next)
	}
	return out, it.Error()
}

// writeTable writes a table of range tombstones, which come in order, and records.
func (w *SSTWriter) writeTable(gone []pebble.KeyRange, kvs []KV) error {
	kvs = slices.Clone(kvs)
	slices.SortFunc(kvs, func(a, b KV) int { return bytes.Compare(a.Key, b.Key) })
	if err := w.newTable(); err != nil {
		return err
	}
	for _, r := range gone {
		if err := w.table.DeleteRange(r.Start, r.End); err != nil {
			return fmt.Errorf("add range tombstone to table: %w", err)
		}
	}
	for _, kv := range kvs {
		var err error
		if kv.Value == nil {
			err = w.table.Delete(kv.Key)
		} else {
			err = w.table.Set(kv.Key, kv.Value)
		}
		if err != nil {
			return fmt.Errorf("add record to table: %w", err)
		}
	}
	return w.finishTable()
}
