package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// checkWatches decides H7 to H10. What happened is known from everybody together: from
// answers, from reads, and from all watches.
func (f *facts) checkWatches(prompt bool) []Violation {
	var found []Violation
	told := newToldIndex(f.ops)
	lists := f.indexLists()
	for i := range f.Watches {
		d := checkDelivery(&f.Watches[i])
		f.checkComplete(d)
		f.checkPrevValues(d)
		f.checkAssembled(d, lists[d.w.span()])
		if prompt {
			d.checkPrompt(told)
		}
		found = append(found, d.found...)
	}
	return found
}

// span is what a watch or a read is about, without its revision.
func (w *Watch) span() Read { return Read{Key: w.Of.Key, End: w.Of.End} }

// checkComplete decides H8: between its begin and where it has come to, a watch was
// given every change that is known.
func (f *facts) checkComplete(d *delivery) {
	if !d.begun {
		return
	}
	end := d.position()
	for _, c := range f.since(d.begin) {
		if c.rev > end {
			return
		}
		if !c.sure || !d.w.wants(c.key, c.put) {
			continue
		}
		if _, ok := d.given[place{c.key, c.rev}]; !ok {
			d.lost(c)
			return // one is enough to find the others
		}
	}
}

// since returns the changes above a revision, in order.
func (f *facts) since(rev int64) []change {
	i, _ := slices.BinarySearchFunc(f.timeline, rev+1, func(c change, r int64) int { return cmp.Compare(c.rev, r) })
	return f.timeline[i:]
}

// lost reports a change that should have been given, with the first response that had
// passed it.
func (d *delivery) lost(c change) {
	passed := slices.IndexFunc(d.w.Responses, func(r WatchResponse) bool {
		return r.isProgress() && r.Revision >= c.rev || len(r.Events) > 0 && r.Events[len(r.Events)-1].KV.Mod >= c.rev
	})
	what := "deletion"
	if c.put {
		what = "put"
	}
	d.reportWith([]Op{*c.op}, LostEvent, fmt.Sprintf("the %s of %q at %d was not given, but later ones or progress were", what, c.key, c.rev), passed)
}

// checkPrevValues decides the part of H10 that the history tells: nothing changed the key
// between its previous value and the event. That the value itself is right is H4's.
func (f *facts) checkPrevValues(d *delivery) {
	for i, resp := range d.w.Responses {
		for _, e := range resp.Events {
			if e.Prev.Version == 0 {
				continue
			}
			if last, known := f.lastAt(e.KV.Key, e.KV.Mod-1); known && last.rev > e.Prev.Mod && (last.put || last.sure) {
				d.report(WrongPrevKV, fmt.Sprintf("%s, but the key was changed at %d", e, last.rev), i)
			}
		}
	}
}

// indexLists finds the answered ranges of each span, by the revision they show.
func (f *facts) indexLists() map[Read][]*cut {
	out := make(map[Read][]*cut)
	for i := range f.ops {
		if f.ops[i].Request.Read == nil {
			continue
		}
		if c, ok := cutOf(&f.ops[i]); ok {
			span := Read{Key: c.read.Key, End: c.read.End}
			out[span] = append(out[span], c)
		}
	}
	for _, list := range out {
		slices.SortStableFunc(list, func(a, b *cut) int { return cmp.Compare(a.at, b.at) })
	}
	return out
}

// checkAssembled compares what an informer would hold, a list and the events since, with
// every later list of the same span. It knows nothing of who wrote what.
func (f *facts) checkAssembled(d *delivery, lists []*cut) {
	if !d.begun || d.w.NoPut || d.w.NoDelete {
		return
	}
	first := slices.IndexFunc(lists, func(c *cut) bool { return c.at >= d.begin })
	if first < 0 || lists[first].at != d.begin {
		return
	}
	base := lists[first]
	state := maps.Clone(base.kvs)
	lists = lists[first:]
	catchUp := func(to int64) {
		for len(lists) > 0 && lists[0].at < to {
			if !maps.Equal(state, lists[0].kvs) {
				d.reportWith([]Op{*base.op, *lists[0].op}, StateMismatch,
					fmt.Sprintf("the list at %d with the events up to %d is {%s}", base.at, lists[0].at, stateText(state)))
			}
			lists = lists[1:]
		}
	}
	for _, resp := range d.w.Responses {
		for _, e := range resp.Events {
			catchUp(e.KV.Mod)
			if e.Put {
				state[e.KV.Key] = e.KV
			} else {
				delete(state, e.KV.Key)
			}
		}
	}
	catchUp(d.position() + 1)
}

func stateText(state map[string]KV) string {
	var kvs []KV
	for _, k := range sortedKeys(state) {
		kvs = append(kvs, state[k])
	}
	return join(kvs)
}

// toldIndex answers what the highest revision was that completed requests inside a span
// had been told by some time.
type toldIndex struct {
	ops   []*Op // by return
	spans map[Read][]told
}

type told struct {
	at  time.Duration
	top *Op
}

func newToldIndex(ops []Op) *toldIndex {
	t := &toldIndex{spans: make(map[Read][]told)}
	for i := range ops {
		op := &ops[i]
		if op.Outcome == OK && (op.Request.Read == nil || op.Request.Read.Revision == 0) {
			t.ops = append(t.ops, op)
		}
	}
	slices.SortStableFunc(t.ops, func(a, b *Op) int { return cmp.Compare(a.Return, b.Return) })
	return t
}

func (t *toldIndex) before(span Read, at time.Duration) (*Op, bool) {
	list, built := t.spans[span]
	if !built {
		var top *Op
		for _, op := range t.ops {
			if op.inside(&span) && (top == nil || op.Response.Revision > top.Response.Revision) {
				top = op
				list = append(list, told{op.Return, top})
			}
		}
		t.spans[span] = list
	}
	i, _ := slices.BinarySearchFunc(list, at, func(s told, at time.Duration) int { return cmp.Compare(s.at, at) })
	if i == 0 {
		return nil, false
	}
	return list[i-1].top, true
}

// inside reports whether everything an operation touched lies in the span.
func (o *Op) inside(span *Read) bool {
	if o.Request.Read != nil {
		return o.Request.Read.within(span)
	}
	return !slices.ContainsFunc(o.Request.keys(), func(k string) bool { return !span.contains(k) })
}

// checkPrompt decides the last part of H9: the answer to a request for progress reaches
// whatever anybody had been told of the span before it.
func (d *delivery) checkPrompt(index *toldIndex) {
	i := 0
	for _, asked := range d.w.Asked {
		for i < len(d.w.Responses) && (!d.w.Responses[i].Requested || d.w.Responses[i].At < asked) {
			i++
		}
		if i == len(d.w.Responses) {
			return
		}
		if op, ok := index.before(d.w.span(), asked); ok && op.Response.Revision > d.w.Responses[i].Revision {
			d.reportWith([]Op{*op}, ShortProgress, fmt.Sprintf("progress %d was told on request, but %d was known of the span before",
				d.w.Responses[i].Revision, op.Response.Revision), i)
		}
		i++
	}
}
