package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkLinearizable decides H1, one group after the other. A group is first checked
// without the writes that left no trace: if that explains everything, putting them
// all at the end explains the rest. Only otherwise are they searched a place, which
// can be exponential in their number.
func (f *facts) checkLinearizable(timeout time.Duration) (found []Violation, undecided []string) {
	groups := groupKeys(f.ops, f.keys)
	for _, keys := range groups.lists(f.keys) {
		if slices.ContainsFunc(keys, func(k string) bool { return f.leased[k] && !f.watched(k) }) {
			continue // the ends of leases are hidden, and anything can be explained by them
		}
		model := newModel(keys)
		proven, unproven := f.operations(keys)
		ops := proven
		result := porcupine.CheckOperationsTimeout(model, ops, timeout)
		if result == porcupine.Illegal && len(unproven) > 0 {
			ops = append(proven, unproven...)
			result = porcupine.CheckOperationsTimeout(model, ops, timeout)
		}
		switch result {
		case porcupine.Illegal:
			found = append(found, explain(keys, model, ops, timeout))
		case porcupine.Unknown:
			undecided = append(undecided, fmt.Sprintf("keys %q: no verdict on %d operations within %s", keys, len(ops), timeout))
		}
	}
	return found, undecided
}

// operations projects the history onto a group. Reads at an explicit revision are
// left to the cuts.
func (f *facts) operations(keys []string) (proven, unproven []porcupine.Operation) {
	for i := range f.ops {
		op := &f.ops[i]
		s := step{op: op, rev: hidden}
		if op.Request.Read != nil {
			if op.Outcome != OK || op.Request.Read.Revision != 0 {
				continue
			}
			if s.view = viewOf(op, keys); len(s.view) == 0 {
				continue
			}
		} else if !slices.Contains(keys, anyKey(op)) {
			continue
		}
		end := int64(op.Return)
		if rev, ok := f.revisions[op.ID]; ok {
			s.rev = rev
		} else if op.Outcome != OK {
			if op.Outcome == Unknown && op.Request.mayWrite() {
				unproven = append(unproven, porcupine.Operation{ClientId: op.Client, Input: &s, Call: int64(op.Call), Return: math.MaxInt64})
			}
			continue
		}
		if op.Outcome != OK {
			// Whoever saw it returned after it had been applied.
			end = int64(f.proofs[op.ID])
		}
		proven = append(proven, porcupine.Operation{ClientId: op.Client, Input: &s, Call: int64(op.Call), Return: max(end, int64(op.Call))})
	}
	for _, e := range f.endings {
		if slices.Contains(keys, e.key) {
			s := step{op: &e.op, rev: e.rev}
			proven = append(proven, porcupine.Operation{ClientId: e.op.Client, Input: &s, Call: int64(e.op.Call), Return: int64(e.op.Return)})
		}
	}
	return proven, unproven
}

func viewOf(op *Op, keys []string) []seen {
	var view []seen
	for i, k := range keys {
		if !op.Request.Read.contains(k) {
			continue
		}
		v := seen{key: i, kv: KV{Key: k}}
		if j := slices.IndexFunc(op.Response.KVs, func(kv KV) bool { return kv.Key == k }); j >= 0 {
			v.kv = op.Response.KVs[j]
		}
		view = append(view, v)
	}
	return view
}

// explain tells where the longest explanation of a group's history ends.
func explain(keys []string, model porcupine.Model, ops []porcupine.Operation, timeout time.Duration) Violation {
	_, info := porcupine.CheckOperationsVerbose(model, ops, timeout)
	var longest []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, partial := range partition {
			if len(partial) > len(longest) {
				longest = partial
			}
		}
	}
	state := model.Init()
	placed := make(map[*step]bool, len(longest))
	for _, op := range longest {
		_, state = model.Step(state, op.Input, nil)
		placed[op.Input.(*step)] = true
	}
	candidates := nextCandidates(ops, placed)
	var b strings.Builder
	fmt.Fprintf(&b, "no order of the operations on %q explains their answers; %d of %d can be explained, up to %s;",
		keys, len(longest), len(ops), state.(*groupState))
	fmt.Fprintf(&b, " below, the last %d that fit and the next, of which none does", min(len(longest), explainedShown))
	v := Violation{Anomaly: NotLinearizable, Detail: b.String()}
	for _, op := range longest[max(0, len(longest)-explainedShown):] {
		v.Ops = append(v.Ops, *op.Input.(*step).op)
	}
	for _, op := range candidates[:min(len(candidates), opsShownMax)] {
		v.Ops = append(v.Ops, *op.Input.(*step).op)
	}
	return v
}

// explainedShown is how much of the explained past a violation repeats.
const explainedShown = 3

// nextCandidates are the unplaced operations that began before any unplaced ended:
// one of them would have to come next.
func nextCandidates(ops []porcupine.Operation, placed map[*step]bool) []porcupine.Operation {
	var out []porcupine.Operation
	end := int64(math.MaxInt64)
	for _, op := range ops {
		if !placed[op.Input.(*step)] {
			out = append(out, op)
			end = min(end, op.Return)
		}
	}
	out = slices.DeleteFunc(out, func(op porcupine.Operation) bool { return op.Call > end })
	slices.SortFunc(out, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return out
}
