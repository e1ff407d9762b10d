package lease

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Classes is the number of a shard's fences: few enough to store, and enough that unrelated
// revocations rarely force anybody to register again.
const Classes = 256

// class is stored with the fences: it can never change. It is the other end of the hash
// from the one that home keys are ordered by.
func class(id int64) int { return int(shard.HomeKey(id)[7]) }

// Table is one replica's applied lease state. One goroutine changes it (the replica's apply
// worker), by Updates; any may read it.
type Table struct {
	mu         sync.RWMutex
	records    map[int64]*Record
	registered map[int64]registration // by lease
	book       book
	will       *shardpb.LeaseWill // of the last reign, until the next; nil: none
}

// registration says which lease of an ID keys of the shard were attached to last.
type registration struct {
	incarnation int64 // 0: none
	// void is set by a merge: the lease's record may not cover the keys that came, so
	// nobody attaches by it (L2). What it says of the incarnation still counts.
	void bool
}

func (r registration) proto(id int64) *shardpb.LeaseRegistration {
	return &shardpb.LeaseRegistration{Lease: id, Incarnation: r.incarnation, Void: r.void}
}

// book is a shardpb.LeaseBook.
type book struct {
	reign  uint64
	fences [Classes]uint64
}

// NewTable returns a table that holds the state; nil is an empty one.
func NewTable(state *shardpb.LeaseState) (*Table, error) {
	t := &Table{records: make(map[int64]*Record), registered: make(map[int64]registration)}
	for _, p := range state.GetRecords() {
		r, err := RecordOf(p)
		if err != nil {
			return nil, err
		}
		t.records[r.ID] = r
	}
	for _, g := range state.GetRegistrations() {
		t.registered[g.Lease] = registration{g.Incarnation, g.Void}
	}
	if b := state.GetBook(); b != nil {
		if b.Format != format {
			return nil, fmt.Errorf("lease book: format %d is not known to this version of flotilla", b.Format)
		}
		if len(b.Fences) > Classes {
			return nil, fmt.Errorf("lease book with %d fences: %w", len(b.Fences), shard.ErrCorrupt)
		}
		t.book.reign = b.Reign
		copy(t.book.fences[:], b.Fences)
	}
	if w := state.GetWill(); w != nil {
		if w.Format != format {
			return nil, fmt.Errorf("lease will: format %d is not known to this version of flotilla", w.Format)
		}
		if !WellFormed(w) || w.Reign != t.book.reign {
			return nil, fmt.Errorf("lease will of reign %d in reign %d: %w", w.Reign, t.book.reign, shard.ErrCorrupt)
		}
		t.will = w
	}
	return t, nil
}

// State is the whole table, in an order that depends on its content alone.
func (t *Table) State() *shardpb.LeaseState { return t.Freeze().State() }

// Frozen is a table at one moment.
type Frozen struct {
	records    []*Record
	registered map[int64]registration
	book       book
	will       *shardpb.LeaseWill
}

// Freeze captures the table's content. It is fast even for a large table; the slow part is left to
// State.
func (t *Table) Freeze() *Frozen {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return &Frozen{records: slices.Collect(maps.Values(t.records)), registered: maps.Clone(t.registered), book: t.book, will: t.will}
}

// State is Table.State of that moment.
func (f *Frozen) State() *shardpb.LeaseState {
	s := &shardpb.LeaseState{Book: f.book.proto(), Will: f.will}
	for _, r := range f.records {
		s.Records = append(s.Records, r.Proto())
	}
	for id, r := range f.registered {
		s.Registrations = append(s.Registrations, r.proto(id))
	}
	slices.SortFunc(s.Records, func(a, b *shardpb.LeaseRecord) int { return cmp.Compare(a.Lease, b.Lease) })
	slices.SortFunc(s.Registrations, func(a, b *shardpb.LeaseRegistration) int { return cmp.Compare(a.Lease, b.Lease) })
	return s
}

// proto is nil for a book in which nothing was written.
func (b *book) proto() *shardpb.LeaseBook {
	if *b == (book{}) {
		return nil
	}
	p := &shardpb.LeaseBook{Format: format, Reign: b.reign}
	if b.fences != [Classes]uint64{} {
		p.Fences = slices.Clone(b.fences[:])
	}
	return p
}

// Record returns the lease whose home the shard is; nil if there is none.
func (t *Table) Record(id int64) *Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.records[id]
}

// Records lists the leases whose home the shard is, in no particular order.
func (t *Table) Records() []*Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*Record, 0, len(t.records))
	for _, r := range t.records {
		out = append(out, r)
	}
	return out
}

// Len is the number of leases whose home the shard is.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.records)
}

// Reign is the last reign that began, 0 before the first.
func (t *Table) Reign() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.book.reign
}
