package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// facts is what a history proves: which writes were applied, at which revision, and
// which may have been. Every check reads it and none changes it.
type facts struct {
	History
	ops []Op // of History
	// keys are all keys of the history, sorted.
	keys []string
	// effects are the proven changes of each key, by revision.
	effects map[string][]effect
	// sightings are all values of each key that somebody saw.
	sightings map[string][]sighting
	// maybes are the writes of unknown outcome that left no trace, for each key.
	maybes map[string][]maybe
	// revisions has every proven write, by operation ID.
	revisions map[int]int64
	// proofs has the earliest time by which an unacknowledged write was seen.
	proofs map[int]time.Duration
	// endings are the deletions that watches have shown and no request is known to have
	// made: leases that ended, and deletes of unknown outcome.
	endings []*ending
	// timeline has all effects, by revision.
	timeline []change
	// leased are the keys that some request attaches to a lease.
	leased map[string]bool
}

// effect is a change of one key that certainly happened.
type effect struct {
	op  *Op
	rev int64
	// put is false for a deletion.
	put bool
	// sure says that something changed, so that there must be an event: an
	// unacknowledged delete may have found nothing.
	sure bool
	// lease is what a put attaches the key to.
	lease int64
}

// change is an effect and its key.
type change struct {
	key string
	effect
}

// sighting is one existing key as one operation saw it.
type sighting struct {
	op *Op
	kv KV
}

// maybe is a write of unknown outcome nobody saw the result of.
type maybe struct {
	op            *Op
	puts, deletes bool
}

// cell identifies a write: every (key, value) pair is written by one operation.
type cell struct{ key, value string }

// gather derives the facts, and reports what contradicts itself on the way.
func gather(h History) (*facts, []Violation) {
	f := &facts{
		History: h, ops: h.Ops, effects: make(map[string][]effect), sightings: make(map[string][]sighting),
		maybes: make(map[string][]maybe), revisions: make(map[int]int64), proofs: make(map[int]time.Duration),
		leased: make(map[string]bool),
	}
	writers, found := f.collectWriters()
	if len(found) > 0 {
		return f, found
	}
	f.collectSightings()
	seen := f.collectEvents()
	found = append(found, f.resolve(writers)...)
	f.collectEffects()
	found = append(found, f.collectEndings(seen)...)
	f.collectTimeline()
	f.collectKeys()
	return f, found
}

func (f *facts) collectWriters() (map[cell]*Op, []Violation) {
	var found []Violation
	writers := make(map[cell]*Op)
	for i := range f.ops {
		op := &f.ops[i]
		if !op.wellFormed() {
			found = append(found, Violation{MalformedResponse, "the answer has not one result for each action of its branch", []Op{*op}})
		}
		for _, branch := range [][]Action{op.Request.Then, op.Request.Else} {
			for _, a := range branch {
				if a.Kind != ActionPut {
					continue
				}
				c := cell{a.Key, a.Value}
				if other := writers[c]; other != nil {
					found = append(found, Violation{UnusableHistory, fmt.Sprintf("%q=%q is written twice; values must be unique", a.Key, a.Value), []Op{*other, *op}})
				}
				writers[c] = op
				if a.Lease != 0 {
					f.leased[a.Key] = true
				}
			}
		}
	}
	return writers, found
}

func (f *facts) collectSightings() {
	for i := range f.ops {
		op := &f.ops[i]
		if op.Outcome != OK {
			continue
		}
		for _, kv := range op.Response.KVs {
			f.sightings[kv.Key] = append(f.sightings[kv.Key], sighting{op, kv})
		}
		for j, a := range op.Request.branch(op.Response.Succeeded) {
			if kv := op.Response.Results[j].KV; a.Kind == ActionGet && kv.Version > 0 {
				f.sightings[a.Key] = append(f.sightings[a.Key], sighting{op, kv})
			}
		}
	}
}

// resolve finds the revision of every write that is acknowledged or was seen.
func (f *facts) resolve(writers map[cell]*Op) []Violation {
	var found []Violation
	for i := range f.ops {
		if op := &f.ops[i]; op.wrote() {
			f.revisions[op.ID] = op.Response.Revision
		}
	}
	told := make(map[cell]bool) // one report for each write is enough
	for _, key := range sortedKeys(f.sightings) {
		for _, s := range f.sightings[key] {
			c := cell{s.kv.Key, s.kv.Value}
			if v, bad := f.attribute(s, writers[c]); bad && !told[c] {
				told[c] = true
				found = append(found, v)
			}
		}
	}
	return found
}

// attribute ties a sighting to the operation that wrote the value.
func (f *facts) attribute(s sighting, w *Op) (Violation, bool) {
	if w == nil {
		return Violation{ValueFromNowhere, fmt.Sprintf("%s was read, but no request wrote it", s.kv), []Op{*s.op}}, true
	}
	if w.Outcome == OK && !putsInBranch(w.Request.branch(w.Response.Succeeded), s.kv) {
		return Violation{ValueFromNowhere, fmt.Sprintf("%s was read, but its transaction took the other branch", s.kv), []Op{*w, *s.op}}, true
	}
	rev, known := f.revisions[w.ID]
	if !known {
		rev = s.kv.Mod
		f.revisions[w.ID] = rev
	}
	if w.Outcome != OK {
		if at, ok := f.proofs[w.ID]; !ok || s.op.Return < at {
			f.proofs[w.ID] = s.op.Return
		}
	}
	switch {
	case w.Outcome == Refused:
		return Violation{RefusedWriteApplied, fmt.Sprintf("%s was read after its write was refused", s.kv), []Op{*w, *s.op}}, true
	case rev != s.kv.Mod:
		return Violation{TwoRevisions, fmt.Sprintf("%q=%q was written once, at revision %d, but is also there at %d", s.kv.Key, s.kv.Value, rev, s.kv.Mod), []Op{*w, *s.op}}, true
	}
	return Violation{}, false
}

func putsInBranch(actions []Action, kv KV) bool {
	return slices.ContainsFunc(actions, func(a Action) bool {
		return a.Kind == ActionPut && a.Key == kv.Key && a.Value == kv.Value
	})
}

func (f *facts) collectEffects() {
	for i := range f.ops {
		op := &f.ops[i]
		rev, proven := f.revisions[op.ID]
		switch {
		case proven && op.Outcome == OK:
			for j, a := range op.Request.branch(op.Response.Succeeded) {
				if a.Kind == ActionPut || a.Kind == ActionDelete && op.Response.Results[j].Deleted {
					f.addEffect(a.Key, effect{op: op, rev: rev, put: a.Kind == ActionPut, sure: true, lease: a.Lease})
				}
			}
		case proven:
			// Whether or not there was something to delete, the key is absent after rev.
			for _, a := range f.provenBranch(op) {
				if a.Kind != ActionGet {
					put := a.Kind == ActionPut
					f.addEffect(a.Key, effect{op: op, rev: rev, put: put, sure: put, lease: a.Lease})
				}
			}
		case op.Outcome == Unknown && op.Request.mayWrite():
			f.collectMaybe(op)
		}
	}
	for _, list := range f.effects {
		slices.SortStableFunc(list, func(a, b effect) int { return cmp.Compare(a.rev, b.rev) })
	}
}

func (f *facts) addEffect(key string, e effect) { f.effects[key] = append(f.effects[key], e) }

// provenBranch is the branch of an unacknowledged write whose value was seen.
func (f *facts) provenBranch(op *Op) []Action {
	for _, a := range op.Request.Then {
		if a.Kind != ActionPut {
			continue
		}
		for _, s := range f.sightings[a.Key] {
			if s.kv.Value == a.Value {
				return op.Request.Then
			}
		}
	}
	return op.Request.Else
}

func (f *facts) collectMaybe(op *Op) {
	byKey := make(map[string]*maybe)
	for _, branch := range [][]Action{op.Request.Then, op.Request.Else} {
		for _, a := range branch {
			if a.Kind == ActionGet {
				continue
			}
			if byKey[a.Key] == nil {
				byKey[a.Key] = &maybe{op: op}
			}
			byKey[a.Key].puts = byKey[a.Key].puts || a.Kind == ActionPut
			byKey[a.Key].deletes = byKey[a.Key].deletes || a.Kind == ActionDelete
		}
	}
	for key, m := range byKey {
		f.maybes[key] = append(f.maybes[key], *m)
	}
}

func (f *facts) collectKeys() {
	all := make(map[string]bool)
	for i := range f.ops {
		req := &f.ops[i].Request
		if req.Read != nil && req.Read.End == "" {
			all[req.Read.Key] = true
		}
		for _, k := range req.keys() {
			all[k] = true
		}
	}
	for k := range f.effects {
		all[k] = true
	}
	f.keys = sortedKeys(all)
}

// lastAt returns the newest proven change of key at or below rev.
func (f *facts) lastAt(key string, rev int64) (effect, bool) {
	list := f.effects[key]
	i, _ := slices.BinarySearchFunc(list, rev+1, func(e effect, r int64) int { return cmp.Compare(e.rev, r) })
	if i == 0 {
		return effect{}, false
	}
	return list[i-1], true
}

// maybeDeleted reports whether an unproven delete of key could have run before end. The
// end of a lease is one that no request tells of.
func (f *facts) maybeDeleted(key string, end time.Duration) bool {
	return f.leased[key] || f.requestedDelete(key, end)
}

// maybePuts counts the unproven puts of key that could have run before end.
func (f *facts) maybePuts(key string, end time.Duration) int {
	n := 0
	for _, m := range f.maybes[key] {
		if m.puts && m.op.Call < end {
			n++
		}
	}
	return n
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
