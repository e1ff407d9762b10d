package history

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// hidden stands for a revision that nobody was told: that of a write of unknown
// outcome whose value was never seen. It equals no revision a compare can expect.
const hidden = -1

// groupState is what one group of keys holds. It is immutable.
type groupState struct {
	// last is the highest known revision of a write to the group; floor is the highest
	// reported to anybody, so that every later write is above it.
	last, floor int64
	kvs         []KV // in the order of the group's keys
}

// step is one operation as the model of one group sees it.
type step struct {
	op *Op
	// rev is the write's revision if proven, else hidden.
	rev int64
	// view is what a read of the group showed: indexes of keys and what they held.
	view []seen
}

type seen struct {
	key int
	kv  KV
}

// newModel describes a correct store, restricted to a group of keys.
func newModel(keys []string) porcupine.Model {
	index := make(map[string]int, len(keys))
	for i, k := range keys {
		index[k] = i
	}
	seed := maphash.MakeSeed()
	return porcupine.Model{
		Init: func() any {
			s := &groupState{kvs: make([]KV, len(keys))}
			for i, k := range keys {
				s.kvs[i].Key = k
			}
			return s
		},
		Step: func(state, input, _ any) (bool, any) {
			next, ok := input.(*step).apply(state.(*groupState), index)
			return ok, next
		},
		Equal: func(a, b any) bool { return a.(*groupState).equal(b.(*groupState)) },
		Hash:  func(s any) uint64 { return s.(*groupState).hash(seed) },
	}
}

func (s *step) apply(g *groupState, index map[string]int) (*groupState, bool) {
	if s.op.Request.Read != nil {
		return s.applyRead(g)
	}
	return s.applyTxn(g, index)
}

func (s *step) applyRead(g *groupState) (*groupState, bool) {
	next := *g
	for _, v := range s.view {
		kv, ok := reconcile(next.kvs[v.key], v.kv)
		if !ok {
			return g, false
		}
		next.set(g, v.key, kv)
	}
	return next.report(g, s.op.Response.Revision)
}

// report accounts for the header of a read: it is not before the last write.
func (g *groupState) report(was *groupState, rev int64) (*groupState, bool) {
	if rev < g.last {
		return was, false
	}
	g.floor = max(g.floor, rev)
	return g, true
}

// set replaces one key, and copies the keys first while they are still shared with was.
func (g *groupState) set(was *groupState, i int, kv KV) {
	if g.kvs[i] == kv {
		return
	}
	if len(was.kvs) > 0 && &g.kvs[0] == &was.kvs[0] {
		g.kvs = slices.Clone(g.kvs)
	}
	g.kvs[i] = kv
}

// reconcile compares what is with what was seen. A key that was created by a hidden
// write learns its create revision from the first reader.
func reconcile(is, saw KV) (KV, bool) {
	if is.Version > 0 && saw.Version > 0 && is.Create == hidden && saw.Create <= is.Mod {
		is.Create = saw.Create
	}
	if is.Version == 0 {
		return is, saw.Version == 0
	}
	return is, is == saw
}

// applyTxn runs a transaction. What is known about its answer has to agree.
func (s *step) applyTxn(g *groupState, index map[string]int) (*groupState, bool) {
	succeeded := true
	for _, c := range s.op.Request.If {
		succeeded = succeeded && c.holds(g.kvs[index[c.Key]])
	}
	told := s.op.Outcome == OK
	if told && succeeded != s.op.Response.Succeeded {
		return g, false
	}
	next := *g
	wrote := false
	for i, a := range s.op.Request.branch(succeeded) {
		k := index[a.Key]
		is := next.kvs[k]
		switch a.Kind {
		case ActionGet:
			if !told {
				continue
			}
			kv, ok := reconcile(is, s.op.Response.Results[i].KV)
			if !ok {
				return g, false
			}
			next.set(g, k, kv)
		case ActionPut:
			wrote = true
			next.set(g, k, is.overwrite(a, s.rev))
		case ActionDelete:
			if told && s.op.Response.Results[i].Deleted != (is.Version > 0) {
				return g, false
			}
			wrote = wrote || is.Version > 0
			next.set(g, k, KV{Key: a.Key})
		}
	}
	if told && !wrote {
		return next.report(g, s.op.Response.Revision)
	}
	return next.advance(g, s.rev, wrote)
}

// advance accounts for the revision of a write: it is above everything reported.
func (g *groupState) advance(was *groupState, rev int64, wrote bool) (*groupState, bool) {
	switch {
	case rev == hidden:
		return g, true
	case !wrote || rev <= g.floor:
		return was, false
	}
	g.last, g.floor = rev, rev
	return g, true
}

func (c Compare) holds(kv KV) bool {
	if c.ByValue {
		return kv.Version > 0 && kv.Value == c.Value
	}
	return kv.Mod == c.Mod
}

func (kv KV) overwrite(a Action, rev int64) KV {
	out := KV{Key: kv.Key, Value: a.Value, Create: kv.Create, Mod: rev, Version: kv.Version + 1, Lease: a.Lease}
	if kv.Version == 0 {
		out.Create = rev
	}
	return out
}

func (g *groupState) equal(o *groupState) bool {
	return g == o || g.last == o.last && g.floor == o.floor && slices.Equal(g.kvs, o.kvs)
}

func (g *groupState) hash(seed maphash.Seed) uint64 {
	h := maphash.Comparable(seed, [2]int64{g.last, g.floor})
	for _, kv := range g.kvs {
		h = h*31 + maphash.Comparable(seed, kv)
	}
	return h
}

func (g *groupState) String() string {
	return fmt.Sprintf("last write %d, reported %d: %s", g.last, g.floor, strings.ReplaceAll(join(g.kvs), "mod=-1", "mod=?"))
}
