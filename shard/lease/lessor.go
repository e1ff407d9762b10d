package lease

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// takeOver is how long a revocation may take before the leader requests it again, because whoever
// began it may be gone. It may take twice as long each time, up to takeOverMax: all of its steps are taken again, and
// where each takes long it would never come to its end.
const takeOver, takeOverMax = time.Second, 8 * time.Second

// Lessor measures the remaining time of a shard's leases, during one reign of one leader. Times are
// readings of one monotonic clock. It is for one goroutine at a time.
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
	named int  // by Due, how many times
	index int  // in the queue
}

// Due is a lease that must be revoked.
type Due struct {
	ID, Incarnation int64
	// Reign is passed to REVOKE, so that it is void in a later reign.
	Reign uint64
	// Patience is how long the attempt may take; then the lease is returned again. Again says that it was before.
	Patience time.Duration
	Again    bool
}

// Reign begins a reign. A lease in the will of the last reign continues with the time left by it.
// Every other one gets its whole TTL plus extend, because nobody knows when it was last renewed
// (L3).
func Reign(reign uint64, records []*Record, will *shardpb.LeaseWill, now time.Time, extend time.Duration) *Lessor {
	// All at once: there may be very many, and those who ask for them are waiting.
	l := &Lessor{reign: reign, leases: make(map[int64]*term, len(records)), queue: make(queue, len(records))}
	terms := make([]term, len(records))
	for i, r := range records {
		t := &terms[i]
		*t = termOf(r, now)
		t.due, t.index = t.due.Add(extend), i
		if r.Revoking {
			t.end(now)
		}
		l.leases[r.ID], l.queue[i] = t, t
	}
	l.inherit(will, now)
	heap.Init(&l.queue)
	return l
}

func termOf(r *Record, now time.Time) term {
	ttl := time.Duration(r.TTL) * time.Second
	return term{id: r.ID, incarnation: r.Incarnation, ttl: ttl, due: now.Add(ttl)}
}

// Reign is the number of the reign.
func (l *Lessor) Reign() uint64 { return l.reign }

// Changed adopts a lease's new record, nil for one that was deleted.
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
		t = new(termOf(r, now))
		l.leases[id] = t
		heap.Push(&l.queue, t)
	}
	if r.Revoking && !t.ended {
		l.end(t, now)
	}
}

// Renew gives a lease its whole TTL from now on. It does nothing, and returns false, when the lease
// is unknown, has ended or was found expired.
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

// Remaining is the lease's remaining time; ok is false when it is not alive.
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

// Due returns up to limit leases that must be revoked, earliest first: those that have expired, and
// those whose revocation takes too long. Each is returned again after its Patience if it still exists.
func (l *Lessor) Due(now time.Time, limit int) []Due {
	var out []Due
	for len(out) < limit && len(l.queue) > 0 && !now.Before(l.queue[0].due) {
		t := l.queue[0]
		out = append(out, Due{ID: t.id, Incarnation: t.incarnation, Reign: l.reign, Patience: t.patience(), Again: t.named > 0})
		l.end(t, now)
		t.named++
	}
	return out
}

func (l *Lessor) end(t *term, now time.Time) {
	t.end(now)
	heap.Fix(&l.queue, t.index)
}

func (t *term) end(now time.Time) { t.ended, t.due = true, now.Add(t.patience()) }

func (t *term) patience() time.Duration { return min(takeOver<<min(t.named, 8), takeOverMax) }

// Living lists the living leases, the earliest to expire first.
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
