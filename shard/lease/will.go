package lease

import (
	"math"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// willMax bounds the leases in a will: about 1.5 MB, as much as the largest put.
const willMax = 128 << 10

// Will is the will of the reign when it ends: the remaining time of each lease. It is the lessor's
// last act (L10). If there are more leases than a will can hold, it contains those that were
// renewed longest ago, because they would gain the most time.
func (l *Lessor) Will(now time.Time) *shardpb.LeaseWill {
	w := &shardpb.LeaseWill{Format: format, Reign: l.reign}
	terms := l.queue
	for _, t := range terms {
		w.Newest = max(w.Newest, t.incarnation)
	}
	if len(terms) > willMax {
		terms = slices.Clone(terms)
		slices.SortFunc(terms, func(a, b *term) int { return a.due.Add(-a.ttl).Compare(b.due.Add(-b.ttl)) })
		terms = terms[:willMax]
	}
	w.Leases, w.LeftMs = make([]int64, len(terms)), make([]uint64, len(terms))
	for i, t := range terms {
		w.Leases[i] = t.id
		if t.ended { // found to be over, though its revocation may be void in the next reign
			continue
		}
		// Rounded up: what is left never becomes less on the way.
		w.LeftMs[i] = uint64(max(0, t.due.Sub(now)+time.Millisecond-1) / time.Millisecond)
	}
	return w
}

// inherit gives leases what a will has left them. It only ever shortens their time.
func (l *Lessor) inherit(w *shardpb.LeaseWill, now time.Time) {
	for i, id := range w.GetLeases() {
		t := l.leases[id]
		if t == nil || t.ended || t.incarnation > w.Newest {
			continue
		}
		left := time.Duration(min(w.LeftMs[i], math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
		if due := now.Add(left); due.Before(t.due) {
			t.due = due
		}
	}
}

// WellFormed reports whether a will can be read.
func WellFormed(w *shardpb.LeaseWill) bool {
	return w.GetFormat() == format && w.Reign != 0 && len(w.Leases) == len(w.LeftMs)
}

// Bequeath keeps a reign's will for the next one. It is void unless the reign is the last:
// whoever began another may have renewed leases meanwhile.
func (u *Update) Bequeath(w *shardpb.LeaseWill) (kept bool) {
	if w.Reign != u.Reign() {
		return false
	}
	u.will = w
	return true
}

// BeginReign begins the next reign and takes away what the last one has left to it, nil for
// nothing.
func (u *Update) BeginReign() (reign uint64, will *shardpb.LeaseWill) {
	will = u.lastWill()
	u.leave(nil)
	b := u.write()
	b.reign++
	return b.reign, will
}

// SkipReign begins a reign that nobody measures leases in: all that counts in the last one
// does not any more, but for what that has left. It goes to the next.
func (u *Update) SkipReign() {
	reign, will := u.BeginReign()
	u.leave(joined(reign, bequest{will, u.Record}))
}

// leave keeps a will, nil for none.
func (u *Update) leave(w *shardpb.LeaseWill) {
	if w == nil && u.lastWill() != nil {
		w = &shardpb.LeaseWill{}
	}
	if w != nil {
		u.will = w
	}
}

// lastWill is what the last reign has left, nil if nothing.
func (u *Update) lastWill() *shardpb.LeaseWill {
	switch {
	case u.will == nil:
		return u.t.will
	case u.will.Reign == 0:
		return nil
	}
	return u.will
}

// bequest is a will and the leases that it may speak of.
type bequest struct {
	*shardpb.LeaseWill
	record func(id int64) *Record
}

// joined is what wills leave together to one reign, nil for nothing. What each of them may
// not speak of is left out: the incarnations of leases of several shards do not compare.
func joined(reign uint64, wills ...bequest) *shardpb.LeaseWill {
	out := &shardpb.LeaseWill{Format: format, Reign: reign}
	for _, b := range wills {
		for i, id := range b.GetLeases() {
			if r := b.record(id); r != nil && r.Incarnation <= b.Newest {
				out.Leases, out.LeftMs = append(out.Leases, id), append(out.LeftMs, b.LeftMs[i])
				out.Newest = max(out.Newest, r.Incarnation)
			}
		}
	}
	if len(out.Leases) == 0 {
		return nil
	}
	return out
}
