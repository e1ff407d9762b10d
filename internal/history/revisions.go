package history

import (
	"cmp"
	"fmt"
	"slices"
)

// checkUnique decides H4 over keys: no two transactions share a revision. What ends
// leases may delete keys of several at once.
func (f *facts) checkUnique() []Violation {
	var found []Violation
	owner := make(map[int64]*Op)
	for i := range f.ops {
		op := &f.ops[i]
		rev, proven := f.revisions[op.ID]
		if !proven {
			continue
		}
		if other := owner[rev]; other != nil {
			found = append(found, Violation{DuplicateRevision, fmt.Sprintf("two transactions have revision %d", rev), []Op{*other, *op}})
			continue
		}
		owner[rev] = op
	}
	for _, e := range f.endings {
		if other := owner[e.rev]; other != nil {
			found = append(found, Violation{DuplicateRevision, fmt.Sprintf("a transaction and a deletion that is not its own have revision %d", e.rev), []Op{*other, e.op}})
		}
	}
	return found
}

// checkOrder decides H5. It walks through real time: what had been reported when an
// operation began bounds what that operation may report. This holds between clients,
// so in particular for each one.
func (f *facts) checkOrder(scopeOf func(key string) string) []Violation {
	byCall := f.reporters()
	byReturn := slices.Clone(byCall)
	slices.SortStableFunc(byCall, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortStableFunc(byReturn, func(a, b *Op) int { return cmp.Compare(a.Return, b.Return) })

	seen := reported{scopeOf: scopeOf, scopes: make(map[string]*Op), spans: make(map[Read]*Op)}
	var found []Violation
	for _, op := range byCall {
		for len(byReturn) > 0 && byReturn[0].Return < op.Call {
			seen.add(byReturn[0])
			byReturn = byReturn[1:]
		}
		if v, bad := seen.check(op, f.keys); bad {
			found = append(found, v)
		}
	}
	return found
}

// reporters are the operations whose header revision speaks of now.
func (f *facts) reporters() []*Op {
	var out []*Op
	for i := range f.ops {
		op := &f.ops[i]
		if op.Outcome == OK && (op.Request.Read == nil || op.Request.Read.Revision == 0) {
			out = append(out, op)
		}
	}
	return out
}

// reported holds the highest revision that completed operations have reported: for
// each scope (keys that certainly lie in one shard) and for each range.
type reported struct {
	scopeOf func(key string) string
	scopes  map[string]*Op
	spans   map[Read]*Op
}

func (r *reported) add(op *Op) {
	if read := op.Request.Read; read != nil && read.End != "" {
		raise(r.spans, *read, op)
		return
	}
	raise(r.scopes, r.scopeOf(anyKey(op)), op)
}

func raise[K comparable](m map[K]*Op, k K, op *Op) {
	if m[k] == nil || op.Response.Revision > m[k].Response.Revision {
		m[k] = op
	}
}

// check compares op with what was reported before it began. A read of one shard
// reports that shard's last write, so an earlier wider read may have reported more;
// but a write is above every read that covered it.
func (r *reported) check(op *Op, keys []string) (Violation, bool) {
	var worst *Op
	least := int64(0)
	bound := func(prior *Op, above int64) {
		if prior != nil && prior.Response.Revision+above > least {
			worst, least = prior, prior.Response.Revision+above
		}
	}
	read := op.Request.Read
	switch {
	case read != nil && read.End != "":
		for _, k := range keys {
			if read.contains(k) {
				bound(r.scopes[r.scopeOf(k)], 0)
			}
		}
		for span, prior := range r.spans {
			if span.within(read) {
				bound(prior, 0)
			}
		}
	case op.wrote():
		bound(r.scopes[r.scopeOf(anyKey(op))], 1)
		for span, prior := range r.spans {
			if span.contains(anyKey(op)) {
				bound(prior, 1)
			}
		}
	default:
		bound(r.scopes[r.scopeOf(anyKey(op))], 0)
	}
	if op.Response.Revision >= least {
		return Violation{}, false
	}
	return Violation{RevisionRegression, fmt.Sprintf("revision %d, where at least %d was due", op.Response.Revision, least), []Op{*worst, *op}}, true
}

// anyKey returns a key of an operation on one group.
func anyKey(op *Op) string {
	if op.Request.Read != nil {
		return op.Request.Read.Key
	}
	return op.Request.keys()[0]
}
