package etcdapi

import (
	"context"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// fakeWatches keep changes in memory, as one shard would. A test can hold keys back, as if
// their shard were behind, or lose what is there.
type fakeWatches struct {
	mu struct {
		sync.Mutex
		rev       shard.Revision
		log       []*mvccpb.Event
		compacted shard.Revision
		behind    map[string]shard.Revision // by the first key of a span: how far it reaches
		open      map[*fakeWatch]bool
		awaited   []shard.Revision
		polls     int
		fails     error          // what Poll says
		unsettled error          // what Settle, SettleHere and Latest say
		elsewhere bool           // SettleHere does not tell
		settling  []func()       // what SettleHere tells later; nil: it tells at once
		asked     int            // calls of Latest
		known     shard.Revision // what Latest says; 0: rev
	}
}

func newFakeWatches() *fakeWatches {
	f := &fakeWatches{}
	f.mu.rev = 42
	f.mu.behind = make(map[string]shard.Revision)
	f.mu.open = make(map[*fakeWatch]bool)
	return f
}

// put changes the keys in one transaction.
func (f *fakeWatches) put(value string, keys ...string) shard.Revision {
	return f.change(mvccpb.Event_PUT, value, keys...)
}

func (f *fakeWatches) change(kind mvccpb.Event_EventType, value string, keys ...string) shard.Revision {
	f.mu.Lock()
	f.mu.rev++
	for _, key := range keys {
		f.mu.log = append(f.mu.log, &mvccpb.Event{Type: kind, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: int64(f.mu.rev)}})
	}
	rev := f.mu.rev
	f.mu.Unlock()
	f.wake()
	return rev
}

// do changes the fake's state and wakes all who watch.
func (f *fakeWatches) do(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	f.wake()
}

func (f *fakeWatches) wake() {
	f.mu.Lock()
	var all []*fakeWatch
	for w := range f.mu.open {
		all = append(all, w)
	}
	f.mu.Unlock()
	for _, w := range all {
		w.ready()
	}
}

func (f *fakeWatches) opened() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.open)
}

func (f *fakeWatches) Settle(context.Context, shard.Span) (shard.Revision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.rev, f.mu.unsettled
}

func (f *fakeWatches) SettleHere(_ shard.Span, who Settled) bool {
	f.mu.Lock()
	rev, err, elsewhere := f.mu.rev, f.mu.unsettled, f.mu.elsewhere
	if f.mu.settling != nil {
		f.mu.settling = append(f.mu.settling, func() { who.Settled(rev, err) })
		f.mu.Unlock()
		return true
	}
	f.mu.Unlock()
	if !elsewhere {
		who.Settled(rev, err)
	}
	return !elsewhere
}

func (f *fakeWatches) Latest(context.Context, []shard.Span) (shard.Revision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.asked++
	if f.mu.known != 0 {
		return f.mu.known, f.mu.unsettled
	}
	return f.mu.rev, f.mu.unsettled
}

func (f *fakeWatches) latest() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(f.mu.rev)
}

func (f *fakeWatches) Watch(span shard.Span, from shard.Revision, prevKV bool, ready func()) Watch {
	w := &fakeWatch{of: f, span: span, next: from, prevKV: prevKV, ready: ready}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.open[w] = true
	return w
}

type fakeWatch struct {
	of     *fakeWatches
	span   shard.Span
	next   shard.Revision
	prevKV bool
	ready  func()
}

func (w *fakeWatch) Poll(max int) (shard.Changes, error) {
	changes, more, err := w.poll(max)
	if more {
		w.ready()
	}
	return changes, err
}

func (w *fakeWatch) poll(max int) (changes shard.Changes, more bool, err error) {
	f := w.of
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.polls++
	if f.mu.fails != nil {
		return shard.Changes{}, false, f.mu.fails
	}
	if w.next < f.mu.compacted {
		return shard.Changes{}, false, &shard.CompactedError{Compacted: f.mu.compacted}
	}
	changes.Through = f.mu.rev
	if limit, ok := f.mu.behind[string(w.span.Start)]; ok {
		changes.Through = min(changes.Through, limit)
	}
	for _, e := range f.mu.log {
		rev := shard.Revision(e.Kv.ModRevision)
		if !w.span.Contains(e.Kv.Key) || rev < w.next || rev > changes.Through {
			continue
		}
		if n := len(changes.Events); n >= max && changes.Events[n-1].Kv.ModRevision != e.Kv.ModRevision {
			changes.Through, more = shard.Revision(changes.Events[n-1].Kv.ModRevision), true
			break
		}
		if w.prevKV {
			e = &mvccpb.Event{Type: e.Type, Kv: e.Kv, PrevKv: &mvccpb.KeyValue{Key: e.Kv.Key}}
		}
		changes.Events = append(changes.Events, e)
	}
	changes.Events = slices.Clip(changes.Events)
	w.next = max64(w.next, changes.Through+1)
	return changes, more, nil
}

func max64(a, b shard.Revision) shard.Revision { return max(a, b) }

func (w *fakeWatch) Await(rev shard.Revision) {
	w.of.mu.Lock()
	w.of.mu.awaited = append(w.of.mu.awaited, rev)
	w.of.mu.Unlock()
	w.ready()
}

func (w *fakeWatch) Span() shard.Span { return w.span }

func (w *fakeWatch) Close() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.mu.open, w)
}
