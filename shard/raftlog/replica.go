package raftlog

import (
	"slices"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// place is the position of an entry. The zero value is nowhere: it occurs only while segments are
// read at startup, when an entry was moved behind its successors.
type place struct {
	segment        uint32
	offset, length uint32 // of its frame
}

// record is one of the small records of a replica. The newest value is in memory.
type record struct {
	data    []byte // nil for none
	segment uint32 // where it is
}

// replica is the log's state of a replica: 12 bytes per entry, and its records.
type replica struct {
	records  [recordKinds]record // by kind, from kindBootstrap on
	state    raftpb.State
	snapshot uint64 // index of the snapshot record

	// The entries from first on (R3).
	first  uint64
	places []place
}

func (r *replica) record(k kind) *record { return &r.records[k-kindBootstrap] }

// end is the index after the last entry, and first when there is none.
func (r *replica) end() uint64 { return r.first + uint64(len(r.places)) }

// bytes is how much a replica's entries before an index take.
func (l *Log) bytes(id raftio.NodeInfo, before uint64) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.replicas[id]
	if r == nil || before <= r.first {
		return 0
	}
	for _, p := range r.places[:min(before, r.end())-r.first] {
		n += int64(p.length)
	}
	return n
}

// The following functions change what is in use. They are the same for what is being written and
// for what is read at startup.

// setRecord stores a record, copying data.
func (l *Log) setRecord(r *replica, k kind, data []byte, segment uint32) error {
	switch k {
	case kindState:
		var s raftpb.State
		if err := s.Unmarshal(data); err != nil {
			return err
		}
		r.state = s
	case kindSnapshot:
		var s raftpb.Snapshot
		if err := s.Unmarshal(data); err != nil {
			return err
		}
		r.snapshot = s.Index
	}
	rec := r.record(k)
	l.count(rec.segment, -len(rec.data))
	rec.data = append(rec.data[:0], data...)
	rec.segment = segment
	l.count(segment, len(data))
	return nil
}

// setEntries replaces all entries from index on.
func (l *Log) setEntries(r *replica, index uint64, places []place) {
	if index <= r.first || len(r.places) == 0 {
		l.forget(r.places)
		r.first, r.places = index, r.places[:0]
	}
	if keep := index - r.first; keep < uint64(len(r.places)) {
		l.forget(r.places[keep:])
		r.places = r.places[:keep]
	}
	r.widen(index)
	for _, p := range places {
		l.count(p.segment, int(p.length))
	}
	r.places = append(r.places, places...)
}

// setMoved records the new places of entries.
func (l *Log) setMoved(r *replica, index uint64, places []place) {
	switch {
	case len(r.places) == 0:
		r.first = index
	case index < r.first:
		r.places = append(make([]place, r.first-index, r.end()-index), r.places...)
		r.first = index
	}
	r.widen(index + uint64(len(places)))
	held := r.places[index-r.first:][:len(places)]
	l.forget(held)
	for i, p := range places {
		l.count(p.segment, int(p.length))
		held[i] = p
	}
}

// widen appends places that become known later, up to an index.
func (r *replica) widen(end uint64) {
	if more := end - r.first; more > uint64(len(r.places)) {
		r.places = append(r.places, make([]place, more-uint64(len(r.places)))...)
	}
}

// removeEntries removes entries up to an index.
func (l *Log) removeEntries(r *replica, index uint64) {
	if index < r.first || len(r.places) == 0 {
		return
	}
	n := uint64(len(r.places))
	if index < r.end()-1 {
		n = index - r.first + 1
	}
	l.forget(r.places[:n])
	r.first, r.places = r.first+n, slices.Clone(r.places[n:]) // those before would take memory as well
}

// forgetReplica removes everything of a replica.
func (l *Log) forgetReplica(r *replica) {
	for _, rec := range r.records {
		l.count(rec.segment, -len(rec.data))
	}
	l.forget(r.places)
}

func (l *Log) forget(places []place) {
	for _, p := range places {
		l.count(p.segment, -int(p.length))
	}
}

// count adds to the bytes in use in a segment. Segment 0 does not exist.
func (l *Log) count(segment uint32, bytes int) {
	if segment != 0 {
		l.segment(segment).live += int64(bytes)
	}
}

// segment returns the segment with a number that is referred to.
func (l *Log) segment(number uint32) *segment { return l.segments[number-l.segments[0].number] }
