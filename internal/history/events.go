package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// ending is a deletion that nobody's answer tells of.
type ending struct {
	key string
	rev int64
	// op stands for it among operations: it ran some time before a watch showed it.
	op Op
	// lease is what the key was attached to, 0 when unknown.
	lease int64
}

// place is where an event belongs: what happens to a key at a revision happens once.
type place struct {
	key string
	rev int64
}

// collectEvents adds what watches have shown to the sightings, each value once, by
// whoever saw it first. It returns the deletions, first seen first.
func (f *facts) collectEvents() []sighting {
	type shown struct {
		put bool
		kv  KV
	}
	first := make(map[shown]sighting)
	var order []shown
	see := func(w *Watch, resp *WatchResponse, put bool, kv KV) {
		k := shown{put, kv}
		was, known := first[k]
		if known && was.op.Return <= resp.At {
			return
		}
		if !known {
			order = append(order, k)
		}
		what := Event{Put: put, KV: kv}
		first[k] = sighting{op: &Op{
			ID: -1, Client: w.Client, Call: w.Opened, Return: resp.At, Outcome: OK,
			Told: fmt.Sprintf("%s shows [%s] %s", w, seconds(resp.At), what),
		}, kv: kv}
	}
	for i := range f.Watches {
		w := &f.Watches[i]
		for j := range w.Responses {
			resp := &w.Responses[j]
			for _, e := range resp.Events {
				see(w, resp, e.Put, e.KV)
				if e.Prev.Version > 0 {
					see(w, resp, true, e.Prev)
				}
			}
		}
	}
	var deletions []sighting
	for _, k := range order {
		if k.put {
			f.sightings[k.kv.Key] = append(f.sightings[k.kv.Key], first[k])
		} else {
			deletions = append(deletions, first[k])
		}
	}
	return deletions
}

// collectEndings attributes the deletions that watches have shown. Those that no known
// request explains become effects of their own.
func (f *facts) collectEndings(deletions []sighting) []Violation {
	var found []Violation
	slices.SortStableFunc(deletions, func(a, b sighting) int { return cmp.Compare(a.kv.Mod, b.kv.Mod) })
	for _, s := range deletions {
		key := s.kv.Key
		list := f.effects[key]
		i, there := slices.BinarySearchFunc(list, s.kv.Mod, func(e effect, r int64) int { return cmp.Compare(e.rev, r) })
		if there {
			list[i].sure = true
			if list[i].put {
				found = append(found, Violation{ChangedPast, fmt.Sprintf("%q was put at %d, and a watch shows its deletion there", key, s.kv.Mod), []Op{*list[i].op, *s.op}})
			}
			continue
		}
		e := f.newEnding(s, list[:i])
		if v, bad := f.checkEnding(e, list[:i]); bad {
			found = append(found, v)
		}
		f.endings = append(f.endings, e)
		f.effects[key] = slices.Insert(list, i, effect{op: &e.op, rev: e.rev, sure: true})
	}
	return found
}

func (f *facts) newEnding(s sighting, before []effect) *ending {
	e := &ending{key: s.kv.Key, rev: s.kv.Mod, op: *s.op}
	e.op.Call = 0
	e.op.Request = Delete(e.key)
	e.op.Response = Response{Revision: e.rev, Succeeded: true, Results: []Result{{Deleted: true}}}
	if len(before) > 0 {
		e.lease = before[len(before)-1].lease
		e.op.Call = min(before[len(before)-1].op.Call, e.op.Return)
	}
	return e
}

// checkEnding decides H10 for a deletion of nobody's known doing: there was something
// to delete, and somebody who may have done it.
func (f *facts) checkEnding(e *ending, before []effect) (Violation, bool) {
	quotes := []Op{e.op}
	if len(before) > 0 {
		quotes = []Op{*before[len(before)-1].op, e.op}
	}
	unseenPut := f.maybePuts(e.key, e.op.Return) > 0
	switch {
	case (len(before) == 0 || !before[len(before)-1].put) && !unseenPut:
		return Violation{DoubleDelete, fmt.Sprintf("%q is deleted at %d, but there was nothing to delete", e.key, e.rev), quotes}, true
	case e.lease == 0 && !unseenPut && !f.requestedDelete(e.key, e.op.Return):
		return Violation{EventFromNowhere, fmt.Sprintf("%q is deleted at %d, but nobody asked for it and it was not attached to a lease", e.key, e.rev), quotes}, true
	}
	return Violation{}, false
}

// requestedDelete reports whether a delete of unknown outcome could have run before end.
func (f *facts) requestedDelete(key string, end time.Duration) bool {
	return slices.ContainsFunc(f.maybes[key], func(m maybe) bool { return m.deletes && m.op.Call < end })
}

func (f *facts) collectTimeline() {
	for key, list := range f.effects {
		for _, e := range list {
			f.timeline = append(f.timeline, change{key, e})
		}
	}
	slices.SortFunc(f.timeline, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.key, b.key))
	})
}

// watched reports whether a watch over the whole history has shown every end of key.
func (f *facts) watched(key string) bool {
	return slices.ContainsFunc(f.Watches, func(w Watch) bool {
		return w.Final && w.From == 1 && w.wants(key, true) && w.wants(key, false)
	})
}
