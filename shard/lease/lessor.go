package lease

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// takeOver is how long a revocation may take before the leader asks for it again: whoever
// began it may be gone.
const takeOver = time.Second

// Lessor measures how long the leases of a shard live, during one reign of one leader.
// Times are readings of one clock that never jumps. It is for one goroutine at a time.
type Lessor struct {
	reign  uint64
	leases map[int64]*term
	queue  queue // by due
}

// term is a lease's time.
type term struct {
	id, incarnation int64
	ttl             time.Duration
	// due is when it expires; of a lease that is being revoked, when to see to it again.
	due   time.Time
	ended bool // named by Due or being revoked (L7)
	index int  // in the queue
}

// Due is a lease to be revoked.
type Due struct {
	ID, Incarnation int64
	// Reign is what REVOKE names, so that it is void in a later one.
	Reign uint64
}

// Reign begins to measure. A lease that the will of the last reign names goes on with what
// that has left it. Every other one gets its whole TTL and extend, because nobody knows when
// it was last renewed (L3).
func Reign(reign uint64, records []*Record, will *shardpb.LeaseWill, now time.Time, extend time.Duration) *Lessor {
	l := &Lessor{reign: reign, leases: make(map[int64]*term, len(records))}
	for _, r := range records {
		l.Changed(r.ID, r, now)
		if t := l.leases[r.ID]; !t.ended {
			t.due = t.due.Add(extend)
		}
	}
	l.inherit(will, now)
	heap.Init(&l.queue)
	return l
}

// Reign is the number of the reign.
func (l *Lessor) Reign() uint64 { return l.reign }

// Changed takes over a lease's new record, nil for one that was dropped.
func (l *Lessor) Changed(id int64, r *Record, now time.Time) {
	t := l.leases[id]
	if t != nil && (r == nil || r.Incarnation != t.incarnation) {
		heap.Remove(&l.queue, t.index)
		delete(l.leases, id)
		t = nil
	}
	if r == nil {
		return
	}
	if t == nil {
		t = &term{id: id, incarnation: r.Incarnation, ttl: time.Duration(r.TTL) * time.Second}
		t.due = now.Add(t.ttl)
		l.leases[id] = t
		heap.Push(&l.queue, t)
	}
	if r.Revoking && !t.ended {
		l.end(t, now)
	}
}

// Renew gives a lease its whole TTL from now on. It does nothing, and says so, when the
// lease is not known, has ended or is found to be over.
func (l *Lessor) Renew(id int64, now time.Time) bool {
	t := l.alive(id, now)
	if t == nil {
		return false
	}
	if due := now.Add(t.ttl); due.After(t.due) { // L8
		t.due = due
		heap.Fix(&l.queue, t.index)
	}
	return true
}

// Remaining is how long the lease still lives; ok is false when it does not.
func (l *Lessor) Remaining(id int64, now time.Time) (left time.Duration, ok bool) {
	t := l.alive(id, now)
	if t == nil {
		return 0, false
	}
	return t.due.Sub(now), true
}

func (l *Lessor) alive(id int64, now time.Time) *term {
	t := l.leases[id]
	if t == nil || t.ended || !now.Before(t.due) {
		return nil
	}
	return t
}

// Due names up to limit leases that are to be revoked, earliest first: those that have
// expired, and those whose revocation has not come to its end for long. Each is named
// again after a while if it is still there.
func (l *Lessor) Due(now time.Time, limit int) []Due {
	var out []Due
	for len(out) < limit && len(l.queue) > 0 && !now.Before(l.queue[0].due) {
		t := l.queue[0]
		out = append(out, Due{ID: t.id, Incarnation: t.incarnation, Reign: l.reign})
		l.end(t, now)
	}
	return out
}

func (l *Lessor) end(t *term, now time.Time) {
	t.ended = true
	t.due = now.Add(takeOver)
	heap.Fix(&l.queue, t.index)
}

// Living lists the leases that live, earliest to expire first.
func (l *Lessor) Living(now time.Time) []int64 {
	var terms []*term
	for _, t := range l.queue {
		if l.alive(t.id, now) != nil {
			terms = append(terms, t)
		}
	}
	slices.SortFunc(terms, func(a, b *term) int { return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.id, b.id)) })
	out := make([]int64, len(terms))
	for i, t := range terms {
		out[i] = t.id
	}
	return out
}

// queue is a heap of terms by when they are due.
type queue []*term

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	t := x.(*term)
	t.index = len(*q)
	*q = append(*q, t)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return t
}
