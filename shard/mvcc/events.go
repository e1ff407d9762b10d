package mvcc

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// EventsOptions says which changes to list.
type EventsOptions struct {
	// Limit bounds the memory of one call: about twice as many changes are held at
	// once. The last revision listed is whole all the same. 0 means no limit.
	Limit int
	// PrevKV adds the previous version of each key that had one.
	PrevKV bool
}

// Events lists the changes of the span with revisions in (from, to], ordered by
// revision and, inside one, as they were made. Every change up to and including
// through is listed; through is to unless the limit cut the list. The caller has
// checked that from is not below the compacted revision minus one.
//
// It walks the span's blocks that can hold such revisions, so it is for catching up
// with what is no longer in memory.
func Events(r engine.Reader, span shard.Span, from, to shard.Revision, o EventsOptions) (events []*mvccpb.Event, through shard.Revision, err error) {
	if span.Empty() || from >= to {
		return nil, to, nil
	}
	fail := func(err error) ([]*mvccpb.Event, shard.Revision, error) {
		return nil, 0, fmt.Errorf("list changes of %s in revisions (%s, %s]: %w", span, from, to, err)
	}
	found, through, err := changesBetween(r, span, from, to, o.Limit)
	if err != nil {
		return fail(err)
	}
	events = make([]*mvccpb.Event, len(found))
	for i, f := range found {
		events[i] = f.event
	}
	if o.PrevKV {
		if err := addPrevious(r, events); err != nil {
			return fail(err)
		}
	}
	return events, through, nil
}

// found is an event and its place in the order.
type found struct {
	rev   shard.Revision
	sub   uint32
	event *mvccpb.Event
}

func (f found) compare(o found) int {
	return cmp.Or(cmp.Compare(f.rev, o.rev), cmp.Compare(f.sub, o.sub))
}

func changesBetween(r engine.Reader, span shard.Span, from, to shard.Revision, limit int) (list []found, through shard.Revision, err error) {
	lower, upper := engine.DataSpanBounds(span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper, PointKeyFilters: engine.RevisionFilter(from, to)})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	cutAt := 2 * limit
	for valid := it.First(); valid; valid = it.Next() {
		key, rev, err := dataKeyAt(it)
		if err != nil {
			return nil, 0, err
		}
		// The filter lets whole blocks through: look again.
		if rev <= from || rev > to {
			continue
		}
		rec, err := it.ValueAndErr()
		if err != nil {
			return nil, 0, err
		}
		h, value, err := decodeRecord(rec, rev)
		if err != nil {
			return nil, 0, fmt.Errorf("key %q at revision %s: %w", key, rev, err)
		}
		list = append(list, found{rev, h.Sub, eventOf(bytes.Clone(key), h, bytes.Clone(value))})
		if limit > 0 && len(list) >= cutAt {
			list = cutToLimit(list, limit)
			to = list[len(list)-1].rev
			cutAt = 2 * max(limit, len(list)) // one revision can be larger than the limit
		}
	}
	if err := it.Error(); err != nil {
		return nil, 0, err
	}
	if limit > 0 && len(list) > limit {
		list = cutToLimit(list, limit)
		return list, list[len(list)-1].rev, nil
	}
	slices.SortFunc(list, found.compare)
	return list, to, nil
}

// cutToLimit keeps the first limit changes in order and the rest of the last
// revision among them.
func cutToLimit(list []found, limit int) []found {
	slices.SortFunc(list, found.compare)
	end := limit
	for end < len(list) && list[end].rev == list[limit-1].rev {
		end++
	}
	clear(list[end:]) // for the garbage collector
	return list[:end]
}

// eventOf is what a watch shows of a version. It keeps key and value.
func eventOf(key []byte, h Header, value []byte) *mvccpb.Event {
	kv := &mvccpb.KeyValue{Key: key}
	if h.Deleted { // a delete event shows nothing else
		kv.ModRevision = int64(h.Mod)
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv}
	}
	kv.Value = value
	h.fill(kv)
	return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv}
}

// Event is the change as Events lists it, without the previous version. Key and value are
// copies: they may be parts of something much larger.
func (c *Change) Event() *mvccpb.Event {
	return eventOf(bytes.Clone(c.Key), c.Header, bytes.Clone(c.Value))
}

// Previous returns the version that a change of this update replaced, as Events adds it;
// nil if the key did not exist. The result is the caller's.
func (w *Writer) Previous(c *Change) (*mvccpb.KeyValue, error) {
	if !c.Existed {
		return nil, nil
	}
	f, err := w.Fetch(shard.PointSpan(c.Key), c.Header.Mod-1, listing.FetchOptions{})
	if err != nil || len(f.KVs) == 0 {
		return nil, err
	}
	return f.KVs[0], nil
}

// addPrevious looks up what each event's version replaced.
func addPrevious(r engine.Reader, events []*mvccpb.Event) (err error) {
	it, err := r.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for _, e := range events {
		if e.Kv.Version == 1 { // a put that created the key
			continue
		}
		g := newGather(shard.Revision(e.Kv.ModRevision-1), listing.FetchOptions{})
		if err := fetchPoint(it, e.Kv.Key, g); err != nil {
			return fmt.Errorf("previous version of key %q before revision %d: %w", e.Kv.Key, e.Kv.ModRevision, err)
		}
		if len(g.out.KVs) > 0 {
			e.PrevKv = g.out.KVs[0]
		}
	}
	return nil
}
