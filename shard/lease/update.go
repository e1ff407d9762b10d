package lease

import (
	"cmp"
	"maps"
	"slices"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Update is a set of changes of a Table that nobody else sees before Commit (L5). Its reads include
// its own changes. It belongs to the goroutine that changes the table.
type Update struct {
	t          *Table
	records    map[int64]*Record // nil: dropped
	came       map[int64]*Record // from a neighbour, stored as they are
	registered map[int64]registration
	book       *book              // nil: as it was
	will       *shardpb.LeaseWill // nil: as it was; of reign 0: none any more
	kept       *shard.Span        // nil: as it was
}

// Update begins an Update. It costs nothing until something is changed.
func (t *Table) Update() Update { return Update{t: t} }

// Record returns the lease whose home the shard is; nil if there is none.
func (u *Update) Record(id int64) *Record {
	if u.left(id) {
		return nil
	}
	// The table is changed by this goroutine alone: reading it needs no lock.
	if r, ok := u.records[id]; ok {
		return r
	}
	if r, ok := u.came[id]; ok {
		return r
	}
	return u.t.records[id]
}

// Set stores a record in place of the previous one.
func (u *Update) Set(r *Record) { put(&u.records, r.ID, r) }

// Drop deletes a lease's record.
func (u *Update) Drop(id int64) { put(&u.records, id, nil) }

// Registered returns the incarnation of the lease that keys may be attached to; 0 if
// there is none.
func (u *Update) Registered(id int64) (incarnation int64) {
	if r := u.registration(id); !r.void {
		return r.incarnation
	}
	return 0
}

// Newest returns the incarnation of the last lease with the ID to which keys may have been
// attached, whether they still may be or not; 0 if none is known.
func (u *Update) Newest(id int64) (incarnation int64) { return u.registration(id).incarnation }

func (u *Update) registration(id int64) registration {
	if r, ok := u.registered[id]; ok {
		return r
	}
	return u.t.registered[id]
}

// Register allows keys of the shard to be attached to the lease (L2).
func (u *Update) Register(id, incarnation int64) {
	put(&u.registered, id, registration{incarnation: incarnation})
}

// Detach ends the registration, if any, and raises the fence (L6).
func (u *Update) Detach(id int64) {
	if u.Newest(id) != 0 {
		put(&u.registered, id, registration{})
	}
	u.write().fences[class(id)]++
}

// Fence is the fence that REGISTER must pass.
func (u *Update) Fence(id int64) uint64 { return u.read().fences[class(id)] }

// Reign is the last reign that began.
func (u *Update) Reign() uint64 { return u.read().reign }

// Keep restricts the shard's leases to those whose home keys lie in the span. The others leave with
// their keys, unchanged.
func (u *Update) Keep(span shard.Span) { u.kept = &span }

func (u *Update) left(id int64) bool { return u.kept != nil && !u.kept.Contains(shard.HomeKey(id)) }

// Shared is what both halves of a split get, everything but the records. Of the last reign's will
// each uses the part about its own leases.
func (u *Update) Shared() *shardpb.LeaseState {
	s := &shardpb.LeaseState{Book: u.read().proto(), Will: u.lastWill()}
	all := maps.Clone(u.t.registered)
	maps.Copy(all, u.registered)
	for _, id := range sortedKeys(all) {
		if all[id].incarnation != 0 {
			s.Registrations = append(s.Registrations, all[id].proto(id))
		}
	}
	return s
}

func (u *Update) read() *book {
	if u.book != nil {
		return u.book
	}
	return &u.t.book
}

func (u *Update) write() *book {
	if u.book == nil {
		b := u.t.book
		u.book = &b
	}
	return u.book
}

func put[V any](m *map[int64]V, id int64, v V) {
	if *m == nil {
		*m = make(map[int64]V)
	}
	(*m)[id] = v
}

// Changes is the result of an Update, to be stored: by ID, nothing twice.
type Changes struct {
	Records       []RecordChange
	Registrations []*shardpb.LeaseRegistration // an incarnation of 0: none any more
	Book          *shardpb.LeaseBook           // nil: as it was
	Will          *shardpb.LeaseWill           // nil: as it was; of reign 0: none any more
	// Left are the leases whose home the shard no longer is. Their records stay in place and belong
	// to their new home.
	Left []int64
}

// RecordChange is a lease's new record; nil if it was deleted.
type RecordChange struct {
	ID     int64
	Record *Record
}

// Changes lists what the Update has changed.
func (u *Update) Changes() Changes {
	c := Changes{Will: u.will}
	for _, id := range sortedKeys(u.records) {
		c.Records = append(c.Records, RecordChange{ID: id, Record: u.records[id]})
	}
	for _, id := range sortedKeys(u.registered) {
		c.Registrations = append(c.Registrations, u.registered[id].proto(id))
	}
	if u.book != nil {
		c.Book = u.book.proto()
	}
	if u.kept != nil {
		for _, id := range sortedKeys(u.t.records) {
			if u.left(id) {
				c.Left = append(c.Left, id)
			}
		}
	}
	return c
}

func sortedKeys[V any](m map[int64]V) []int64 {
	if len(m) == 0 {
		return nil // most Updates change nothing here
	}
	return slices.SortedFunc(maps.Keys(m), cmp.Compare[int64])
}

// Commit publishes the changes (L5).
func (u *Update) Commit() {
	if u.records == nil && u.came == nil && u.registered == nil && u.book == nil && u.will == nil && u.kept == nil {
		return
	}
	u.t.mu.Lock()
	defer u.t.mu.Unlock()
	maps.Copy(u.t.records, u.came)
	for id, r := range u.records {
		if r == nil {
			delete(u.t.records, id)
		} else {
			u.t.records[id] = r
		}
	}
	if u.kept != nil {
		maps.DeleteFunc(u.t.records, func(id int64, _ *Record) bool { return u.left(id) })
	}
	for id, r := range u.registered {
		if r.incarnation == 0 {
			delete(u.t.registered, id)
		} else {
			u.t.registered[id] = r
		}
	}
	if u.book != nil {
		u.t.book = *u.book
	}
	u.t.will = u.lastWill()
}
