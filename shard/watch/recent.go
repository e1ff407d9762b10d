package watch

import (
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// recentEventsMax is what a busy shard writes in some tenths of a second: who is polled
	// promptly never needs more, and to be later costs a read of the store, no more.
	recentEventsMax = 4096
	// recentBytesMax keeps shards of large values from holding much: a thousand watched
	// shards, which a node seldom has, take 2 GiB at the very most.
	recentBytesMax = 2 << 20
	// recordBytes is what an event takes besides keys and values.
	recordBytes = 320
)

// record is one change in memory, made once for all who watch.
type record struct {
	rev shard.Revision
	// plain has no PrevKv; full has it, if it was recorded and there was one.
	plain, full *mvccpb.Event
	bytes       int
}

func newRecord(e *mvccpb.Event, prev *mvccpb.KeyValue) record {
	r := record{
		rev: shard.Revision(e.Kv.ModRevision), plain: e, full: e,
		bytes: recordBytes + len(e.Kv.Key) + len(e.Kv.Value),
	}
	if prev != nil {
		r.full = &mvccpb.Event{Type: e.Type, Kv: e.Kv, PrevKv: prev}
		r.bytes += recordBytes + len(prev.Key) + len(prev.Value)
	}
	return r
}

func (r *record) event(prevKV bool) *mvccpb.Event {
	if prevKV {
		return r.full
	}
	return r.plain
}

// recent is the past that is in memory: every change with a revision in (from, floor]
// (W4). A copy of it stays good for reading without the hub's lock: its records are never
// changed in place, only added behind and cut off in front.
type recent struct {
	records []record
	bytes   int
	// cut is how many bytes of records that were dropped their array still holds.
	cut int

	floor, from shard.Revision
	// prevFrom >= from; from there on previous values were recorded too.
	prevFrom shard.Revision
	// Of keys outside of own not all up to ownUntil was recorded: they came by a merge
	// then, and may have been given away before. There are none when ownUntil is not above from.
	own      shard.Span
	ownUntil shard.Revision
}

// nothingUpTo is a past of which nothing was recorded.
func nothingUpTo(floor shard.Revision) recent {
	return recent{floor: floor, from: floor, prevFrom: floor}
}

// add takes over the changes up to floor.
func (r *recent) add(b *Batch, floor shard.Revision) {
	r.records = append(r.records, b.records...)
	for i := range b.records {
		r.bytes += b.records[i].bytes
	}
	r.floor = floor
	if !b.PrevKV && len(b.records) > 0 {
		r.prevFrom = floor
	}
	r.trim()
}

// trim drops the oldest records beyond the bounds. A revision may be cut in two by it;
// what is left of it is not given to anyone, as from is then that revision.
func (r *recent) trim() {
	n := 0
	for ; len(r.records)-n > recentEventsMax || r.bytes > recentBytesMax; n++ {
		r.bytes -= r.records[n].bytes
		r.cut += r.records[n].bytes
	}
	if n == 0 {
		return
	}
	r.from = r.records[n-1].rev
	r.prevFrom = max(r.prevFrom, r.from)
	r.records = r.records[n:]
	if r.cut > recentBytesMax { // let the dropped ones go
		r.records = slices.Clone(r.records)
		r.cut = 0
	}
}

// grow notes that the shard has got more keys than it had, which are had. What is in memory
// speaks of fewer and fewer with each merge: what comes back was another's meanwhile.
func (r *recent) grow(had shard.Span) {
	if r.ownUntil > r.from {
		had = had.Intersect(r.own)
	}
	r.own, r.ownUntil = had, r.floor
}

// covers reports whether everything of the span above pos is in memory.
func (r *recent) covers(span shard.Span, pos shard.Revision, prevKV bool) bool {
	if pos < r.ownUntil && !r.own.ContainsSpan(span) {
		return false
	}
	if prevKV {
		return pos >= r.prevFrom
	}
	return pos >= r.from
}

// after returns the records above pos.
func (r *recent) after(pos shard.Revision) []record {
	return r.records[sort.Search(len(r.records), func(i int) bool { return r.records[i].rev > pos }):]
}

// touches reports whether a change above pos lies in the span.
func (r *recent) touches(span shard.Span, pos shard.Revision) bool {
	return slices.ContainsFunc(r.after(pos), func(rec record) bool { return span.Contains(rec.plain.Kv.Key) })
}

// list returns the span's changes above pos, at most limit and the rest of the last
// revision, and how far that reaches.
func (r *recent) list(span shard.Span, pos shard.Revision, prevKV bool, limit int) (events []*mvccpb.Event, through shard.Revision) {
	last := shard.Revision(0)
	for _, rec := range r.after(pos) {
		if !span.Contains(rec.plain.Kv.Key) {
			continue
		}
		if len(events) >= limit && rec.rev != last {
			return slices.Clip(events), rec.rev - 1
		}
		events = append(events, rec.event(prevKV))
		last = rec.rev
	}
	return slices.Clip(events), r.floor
}
