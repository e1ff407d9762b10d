package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// checkCuts decides H2 and H3: every read shows exactly the writes of its span with
// a revision at or below the read's, and "now" is not in the past.
func (f *facts) checkCuts() []Violation {
	acked := f.indexAcknowledged()
	var found []Violation
	for i := range f.ops {
		op := &f.ops[i]
		if op.Outcome == Refused && op.Request.Read != nil {
			found = append(found, f.checkRefusedRead(op)...)
		}
		c, ok := cutOf(op)
		if !ok {
			continue
		}
		found = append(found, c.checkShape()...)
		for _, key := range f.keys {
			if !c.covers(key) {
				continue
			}
			if v, bad := f.checkKeyInCut(c, key); bad {
				found = append(found, v)
			} else if v, bad := checkRecency(c, acked[key]); bad {
				found = append(found, v)
			}
		}
	}
	return found
}

// cut is a read as a claim: "this is all there is in my span at revision at".
type cut struct {
	op   *Op
	at   int64
	now  bool // linearizable: at must not be in the past either
	kvs  map[string]KV
	read *Read           // nil for the gets of a transaction
	keys map[string]bool // what a transaction's gets cover
}

// cutOf returns the claim an operation makes. A transaction that changed nothing is
// one more way to read; the gets of one that did see the state before its revision,
// which has no name, so only the model judges them.
func cutOf(op *Op) (*cut, bool) {
	if op.Outcome != OK {
		return nil, false
	}
	c := &cut{op: op, at: op.Response.Revision, now: true, kvs: make(map[string]KV), read: op.Request.Read}
	if c.read != nil {
		if c.read.Revision != 0 {
			c.at, c.now = c.read.Revision, false
		}
		for _, kv := range op.Response.KVs {
			c.kvs[kv.Key] = kv
		}
		return c, true
	}
	if op.wrote() {
		return nil, false
	}
	c.keys = make(map[string]bool)
	for i, a := range op.Request.branch(op.Response.Succeeded) {
		if a.Kind == ActionGet {
			c.keys[a.Key] = true
			if kv := op.Response.Results[i].KV; kv.Version > 0 {
				c.kvs[a.Key] = kv
			}
		}
	}
	return c, true
}

func (c *cut) covers(key string) bool {
	if c.read != nil {
		return c.read.contains(key)
	}
	return c.keys[key]
}

// checkShape refuses answers that no cut could look like.
func (c *cut) checkShape() []Violation {
	if c.read == nil {
		return nil
	}
	kvs := c.op.Response.KVs
	if !slices.IsSortedFunc(kvs, func(a, b KV) int { return cmp.Compare(a.Key, b.Key) }) || len(c.kvs) != len(kvs) {
		return []Violation{{MalformedResponse, "keys are repeated or out of order", []Op{*c.op}}}
	}
	for _, kv := range kvs {
		if !c.read.contains(kv.Key) {
			return []Violation{{MalformedResponse, fmt.Sprintf("%q lies outside of what was asked", kv.Key), []Op{*c.op}}}
		}
	}
	return nil
}

func (f *facts) checkKeyInCut(c *cut, key string) (Violation, bool) {
	kv, present := c.kvs[key]
	if present && kv.Mod > c.at {
		return Violation{FutureWrite, fmt.Sprintf("a read at revision %d shows %s", c.at, kv), f.withWriter(c.op, kv)}, true
	}
	last, known := f.lastAt(key, c.at)
	switch {
	case !known:
		return Violation{}, false
	case present && kv.Mod >= last.rev:
		return Violation{}, false
	case !present && (!last.put || f.maybeDeleted(key, c.op.Return)):
		return Violation{}, false
	}
	if !present {
		kv = KV{Key: key}
	}
	return Violation{missed(c, last), fmt.Sprintf("a read at revision %d shows %s, but the write at %d belongs to it", c.at, kv, last.rev), []Op{*last.op, *c.op}}, true
}

// missed names the anomaly of a read that lacks a write of its past.
func missed(c *cut, e effect) Anomaly {
	switch {
	case c.op.Final && e.op.Outcome == OK:
		return LostWrite
	case c.now && e.op.Outcome == OK && e.op.Return < c.op.Call:
		return StaleRead
	default:
		return TornCut
	}
}

// acknowledged lists the acknowledged changes of one key by the time they returned;
// newest[i] is the one with the highest revision among the first i+1.
type acknowledged struct {
	returns []time.Duration
	newest  []effect
}

func (f *facts) indexAcknowledged() map[string]acknowledged {
	out := make(map[string]acknowledged, len(f.effects))
	for key, list := range f.effects {
		acked := slices.DeleteFunc(slices.Clone(list), func(e effect) bool { return e.op.Outcome != OK })
		slices.SortFunc(acked, func(a, b effect) int { return cmp.Compare(a.op.Return, b.op.Return) })
		var idx acknowledged
		var top effect
		for _, e := range acked {
			if e.rev > top.rev {
				top = e
			}
			idx.returns = append(idx.returns, e.op.Return)
			idx.newest = append(idx.newest, top)
		}
		out[key] = idx
	}
	return out
}

// checkRecency: a write that completed before the read began is not above it.
func checkRecency(c *cut, idx acknowledged) (Violation, bool) {
	if !c.now {
		return Violation{}, false
	}
	i, _ := slices.BinarySearch(idx.returns, c.op.Call)
	if i == 0 || idx.newest[i-1].rev <= c.at {
		return Violation{}, false
	}
	e := idx.newest[i-1]
	return Violation{missed(c, e), fmt.Sprintf("a read reports revision %d, but the write at %d completed before it began", c.at, e.rev), []Op{*e.op, *c.op}}, true
}

// checkRefusedRead: a revision that a response has named is not of the future.
func (f *facts) checkRefusedRead(op *Op) []Violation {
	if !isFutureRevision(op.Err) || op.Request.Read.Revision == 0 {
		return nil
	}
	for i := range f.ops {
		src := &f.ops[i]
		if src.Outcome == OK && src.Return < op.Call && src.Response.Revision >= op.Request.Read.Revision && f.spanOf(src, op) {
			return []Violation{{FutureRefused, fmt.Sprintf("revision %d was named before", op.Request.Read.Revision), []Op{*src, *op}}}
		}
	}
	return nil
}

// spanOf reports whether everything src touched lies in what op reads, so that op's
// span has certainly reached src's revision.
func (f *facts) spanOf(src, op *Op) bool {
	if src.Request.Read != nil {
		return src.Request.Read.within(op.Request.Read)
	}
	for _, k := range src.Request.keys() {
		if !op.Request.Read.contains(k) {
			return false
		}
	}
	return true
}

// withWriter returns the operation together with the one that wrote kv.
func (f *facts) withWriter(op *Op, kv KV) []Op {
	for _, e := range f.effects[kv.Key] {
		if e.rev == kv.Mod {
			return []Op{*e.op, *op}
		}
	}
	return []Op{*op}
}
