package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// leaseFacts is what is known of one lease.
type leaseFacts struct {
	id int64
	// due is until when it lives at least: the last acknowledged renewal was sent at
	// renewed, and promised a time to live.
	due     time.Duration
	renewed *LeaseOp
	// over is when it should have ended at the latest, had there been no faults, and ttl
	// what it was granted for.
	over, ttl time.Duration
	// revoked is the first request to revoke it that may have been heard.
	revoked *LeaseOp
	// dead is the earliest proof that it is gone for whoever wants to use it, and deadBy
	// what shows it.
	dead   time.Duration
	deadBy *Op
	// seen is when it was last asked for and found, and seenBy the answer.
	seen   time.Duration
	seenBy *LeaseOp
	// cleared is when an acknowledged revocation had returned, by which its keys are gone.
	cleared   time.Duration
	clearedBy *Op
	// detached has, for each scope, the earliest time by which one of its keys was seen to be
	// deleted: a revocation goes from shard to shard, and until it has come to one, that
	// may still attach what it will delete.
	detached map[string]seenAt
}

// seenAt is a time and what shows it.
type seenAt struct {
	at time.Duration
	by *Op
}

func (l *leaseFacts) die(at time.Duration, by Op) {
	if l.deadBy == nil || at < l.dead {
		l.dead, l.deadBy = at, &by
	}
}

func (l *leaseFacts) detach(scope string, s seenAt) {
	if was, known := l.detached[scope]; !known || s.at < was.at {
		l.detached[scope] = s
	}
}

func (l *leaseFacts) clear(at time.Duration, by Op) {
	if l.clearedBy == nil || at < l.cleared {
		l.cleared, l.clearedBy = at, &by
	}
}

// checkLeases decides H11 and H12.
func (f *facts) checkLeases(opt Options, scopeOf func(key string) string, r *Report) []Violation {
	leases := make(map[int64]*leaseFacts)
	for i := range f.Leases {
		op := &f.Leases[i]
		l := leases[op.Lease]
		if l == nil {
			l = &leaseFacts{id: op.Lease, detached: make(map[string]seenAt)}
			leases[op.Lease] = l
		}
		l.learn(op)
	}
	for _, e := range f.endings {
		// Who deleted the key is certain only when no request may have done it.
		if l := leases[e.lease]; l != nil && !f.requestedDelete(e.key, e.op.Return) && f.maybePuts(e.key, e.op.Return) == 0 {
			l.die(e.op.Return, e.op)
			l.detach(scopeOf(e.key), seenAt{e.op.Return, &e.op})
		}
	}
	f.refusedPuts(leases)
	var found []Violation
	for _, id := range sortedKeys(leases) {
		found = append(found, leases[id].checkLife()...)
		late := leases[id].late(opt)
		r.LatestExpiry = max(r.LatestExpiry, late)
		if opt.LateBy > 0 && late > opt.LateBy {
			found = append(found, Violation{LateExpiry, fmt.Sprintf("lease %d was there for %s after its time", id, late), []Op{quote(leases[id].renewed), quote(leases[id].seenBy)}})
		}
	}
	found = append(found, checkRenewals(f.Leases, leases)...)
	return append(found, f.checkAttached(leases, scopeOf)...)
}

func (l *leaseFacts) learn(op *LeaseOp) {
	switch {
	case op.Gone:
		l.die(op.Return, quote(op))
		if op.Final {
			l.clear(op.Return, quote(op))
		}
	case op.Kind == Ask && op.Outcome == OK:
		if l.seenBy == nil || op.Call > l.seen {
			l.seen, l.seenBy = op.Call, op
		}
	case op.Kind == Revoke && op.Outcome != Refused:
		if l.revoked == nil || op.Call < l.revoked.Call {
			l.revoked = op
		}
		if op.Outcome == OK {
			l.die(op.Return, quote(op))
			l.clear(op.Return, quote(op))
		}
	case (op.Kind == Grant || op.Kind == Renew) && op.Outcome != Refused:
		l.ttl = max(l.ttl, op.TTL)
		l.over = max(l.over, op.Return+l.ttl)
		if op.Outcome == OK && op.Call+op.TTL > l.due {
			l.due, l.renewed = op.Call+op.TTL, op
		}
	}
}

// refusedPuts takes the refusal to attach to a lease as a proof that it is gone.
func (f *facts) refusedPuts(leases map[int64]*leaseFacts) {
	for i := range f.ops {
		op := &f.ops[i]
		if op.Outcome != Refused || !isLeaseNotFound(op.Err) {
			continue
		}
		for _, a := range op.Request.Then {
			if l := leases[a.Lease]; l != nil {
				l.die(op.Return, *op)
			}
		}
	}
}

// checkLife decides H11: a lease nobody asked to revoke lives on for its time.
func (l *leaseFacts) checkLife() []Violation {
	if l.deadBy == nil || l.renewed == nil || l.dead >= l.due || l.revoked != nil && l.revoked.Call < l.dead {
		return nil
	}
	return []Violation{{EarlyExpiry, fmt.Sprintf("lease %d was to live until %s at least, but was seen to be gone at %s",
		l.id, seconds(l.due), seconds(l.dead)), []Op{quote(l.renewed), *l.deadBy}}}
}

// late is how long after its time the lease was still found by who asked for it. The leader that
// comes after one that failed may give every lease its whole time again; one that leadership
// was handed over to may not.
func (l *leaseFacts) late(opt Options) time.Duration {
	if l.seenBy == nil || l.renewed == nil {
		return 0
	}
	over := max(l.over, opt.Asked)
	if opt.Healed > 0 {
		over = max(over, opt.Healed+l.ttl)
	}
	for _, e := range opt.Elected {
		if e.From < l.seen {
			over = max(over, e.To+l.ttl)
		}
	}
	return max(0, l.seen-over)
}

// checkRenewals decides H12 for the lease itself: what is gone is not renewed. How much
// time is left is only asked of whoever believes to know, as in etcd.
func checkRenewals(ops []LeaseOp, leases map[int64]*leaseFacts) []Violation {
	var found []Violation
	for i := range ops {
		op, l := &ops[i], leases[ops[i].Lease]
		if op.Kind != Renew || op.Outcome != OK || op.Gone {
			continue
		}
		if l.deadBy != nil && l.dead < op.Call {
			found = append(found, Violation{DeadLeaseRenewed, fmt.Sprintf("lease %d was gone at %s", l.id, seconds(l.dead)), []Op{*l.deadBy, quote(op)}})
		}
	}
	return found
}

// checkAttached decides H12 for keys: none is attached to a lease that is gone, and none
// survives the lease.
func (f *facts) checkAttached(leases map[int64]*leaseFacts, scopeOf func(key string) string) []Violation {
	var found []Violation
	for i := range f.ops {
		op := &f.ops[i]
		if op.Outcome != OK {
			continue
		}
		for _, a := range op.Request.branch(op.Response.Succeeded) {
			l := leases[a.Lease]
			if a.Kind != ActionPut || l == nil {
				continue
			}
			ended, known := l.detached[scopeOf(a.Key)]
			if l.clearedBy != nil && (!known || l.cleared < ended.at) {
				ended, known = seenAt{l.cleared, l.clearedBy}, true
			}
			if known && ended.at < op.Call {
				found = append(found, Violation{DeadLeaseAccepted, fmt.Sprintf("lease %d was gone from there at %s", l.id, seconds(ended.at)), []Op{*ended.by, *op}})
			}
		}
		if c, ok := cutOf(op); ok && c.now {
			found = append(found, c.checkSurvivors(leases)...)
		}
	}
	return found
}

func (c *cut) checkSurvivors(leases map[int64]*leaseFacts) []Violation {
	var found []Violation
	for _, kv := range c.kvs {
		if l := leases[kv.Lease]; l != nil && l.clearedBy != nil && l.cleared < c.op.Call {
			found = append(found, Violation{DeadLeaseKey, fmt.Sprintf("%s is read after lease %d had ended, at %s", kv, l.id, seconds(l.cleared)), []Op{*l.clearedBy, *c.op}})
		}
	}
	slices.SortFunc(found, func(a, b Violation) int { return cmp.Compare(a.Detail, b.Detail) }) // a map has no order
	return found
}

// isLeaseNotFound reports whether an error text is etcd's refusal of a lease that there
// is not.
func isLeaseNotFound(text string) bool {
	return strings.Contains(text, rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseNotFound))
}
