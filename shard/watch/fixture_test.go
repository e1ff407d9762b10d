package watch

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

const (
	testShard shard.ID = 2
	testEpoch uint64   = 1
)

// store is all of a shard's history, slow and obvious: what the hub should be a window on.
type store struct {
	latest map[string]*mvccpb.KeyValue
	// full are all changes in order, with previous values.
	full []*mvccpb.Event
	view shard.View
	// fails is what the next reads of history say; nil when they work.
	fails error
	reads int
}

func newStore() *store {
	d := &shard.Descriptor{ID: testShard, Epoch: testEpoch, Span: shard.Span{Start: []byte("a"), End: []byte("z")}, Generation: 1}
	return &store{
		latest: make(map[string]*mvccpb.KeyValue),
		view:   shard.View{Rev: shard.FirstRevision, Floor: shard.FirstRevision, Descriptor: d},
	}
}

// write makes a revision of changes: "k=v" puts, "k" deletes. Deletes of what is not
// there change nothing.
func (s *store) write(rev shard.Revision, changes ...string) []*mvccpb.Event {
	var out []*mvccpb.Event
	for _, c := range changes {
		key, value, put := strings.Cut(c, "=")
		prev := s.latest[key]
		e := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: int64(rev)}, PrevKv: prev}
		switch {
		case put:
			e.Kv.Value, e.Kv.CreateRevision, e.Kv.Version = []byte(value), int64(rev), 1
			if prev != nil {
				e.Kv.CreateRevision, e.Kv.Version = prev.CreateRevision, prev.Version+1
			}
			s.latest[key] = e.Kv
		case prev == nil:
			continue
		default:
			e.Type = mvccpb.Event_DELETE
			delete(s.latest, key)
		}
		out = append(out, e)
	}
	at := len(s.full) // what another shard has changed may be later
	for at > 0 && s.full[at-1].Kv.ModRevision > int64(rev) {
		at--
	}
	s.full = slices.Insert(s.full, at, out...)
	if len(out) > 0 {
		s.view.Rev, s.view.Floor = rev, rev
	}
	return out
}

func plain(e *mvccpb.Event) *mvccpb.Event { return &mvccpb.Event{Type: e.Type, Kv: e.Kv} }

// between lists the span's changes in (from, to].
func (s *store) between(span shard.Span, from, to shard.Revision, prevKV bool) []*mvccpb.Event {
	var out []*mvccpb.Event
	for _, e := range s.full {
		if rev := shard.Revision(e.Kv.ModRevision); rev > from && rev <= to && span.Contains(e.Kv.Key) {
			if !prevKV {
				e = plain(e)
			}
			out = append(out, e)
		}
	}
	return out
}

// history is a History that forgets what is compacted.
func (s *store) history(span shard.Span, from, to shard.Revision, o mvcc.EventsOptions) ([]*mvccpb.Event, shard.Revision, error) {
	s.reads++
	switch {
	case s.fails != nil:
		return nil, 0, s.fails
	case s.view.Descriptor == nil || !s.view.Descriptor.Span.ContainsSpan(span):
		return nil, 0, s.view.WrongShard(testShard)
	case from+1 < s.view.Compacted:
		return nil, 0, &shard.CompactedError{Compacted: s.view.Compacted}
	}
	list := s.between(span, from, to, o.PrevKV)
	if o.Limit == 0 || len(list) <= o.Limit {
		return list, to, nil
	}
	end := o.Limit
	for end < len(list) && list[end].Kv.ModRevision == list[end-1].Kv.ModRevision {
		end++
	}
	return list[:end], shard.Revision(list[end-1].Kv.ModRevision), nil
}

// world is a hub over a store.
type world struct {
	*store
	t   testing.TB
	hub *Hub
}

func newWorld(t testing.TB) *world {
	w := &world{store: newStore(), t: t}
	w.hub = New(testShard, w.view, w.store.history, nil)
	return w
}

// apply does what apply does with an update of one command.
func (w *world) apply(change func() []*mvccpb.Event) {
	b := w.hub.Collect()
	events := change()
	w.publish(b, events)
}

func (w *world) publish(b *Batch, events []*mvccpb.Event) {
	if b != nil {
		for _, e := range events {
			if b.PrevKV {
				b.Add(plain(e), e.PrevKv)
			} else {
				b.Add(plain(e), nil)
			}
		}
	}
	w.view.Applied++
	w.hub.Publish(b, w.view)
}

// put writes "k=v" (or deletes "k") at the next revision.
func (w *world) put(changes ...string) shard.Revision {
	rev := w.view.Floor + 1
	w.apply(func() []*mvccpb.Event { return w.write(rev, changes...) })
	return rev
}

func (w *world) closeTo(floor shard.Revision) {
	w.apply(func() []*mvccpb.Event { w.view.Floor = max(w.view.Floor, floor); return nil })
}

// elsewhere makes changes of keys that another shard has now. The shard gets them by a merge
// at the earliest, and then its floor is above them.
func (w *world) elsewhere(changes ...string) shard.Revision {
	published := w.view
	rev := w.view.Floor + 1
	if n := len(w.full); n > 0 {
		rev = max(rev, shard.Revision(w.full[n-1].Kv.ModRevision)+1)
	}
	w.write(rev, changes...)
	w.view = published
	return rev
}

// reshape has the shard have other keys, under the next epoch: fewer by a split, or more by a
// merge. Its floor rises in the same update, above all that was changed elsewhere if it gets more.
func (w *world) reshape(span shard.Span, floor shard.Revision) {
	if n := len(w.full); n > 0 && !w.view.Descriptor.Span.ContainsSpan(span) {
		floor = max(floor, shard.Revision(w.full[n-1].Kv.ModRevision))
	}
	d := *w.view.Descriptor
	d.Epoch, d.Span = d.Epoch+1, span
	w.apply(func() []*mvccpb.Event {
		w.view.Descriptor = &d
		w.view.Rev, w.view.Floor = max(w.view.Rev, floor), max(w.view.Floor, floor)
		return nil
	})
}

func (w *world) compact(rev shard.Revision) {
	w.apply(func() []*mvccpb.Event {
		w.view.Compacted = max(w.view.Compacted, rev)
		w.view.Rev, w.view.Floor = max(w.view.Rev, rev), max(w.view.Floor, rev)
		return nil
	})
}

// feed is a subscription and how often its ready was called since it was last asked.
type feed struct {
	*Subscription
	t      testing.TB
	o      Options
	called int
}

func (w *world) subscribe(o Options) *feed {
	w.t.Helper()
	f := &feed{t: w.t, o: o}
	o.Epoch = w.view.Descriptor.Epoch
	o.Ready = func() { f.called++ }
	s, err := w.hub.Subscribe(o)
	require.NoError(w.t, err)
	f.Subscription = s
	return f
}

// ready takes the calls of ready so far.
func (f *feed) ready() bool {
	called := f.called
	f.called = 0
	return called > 0
}

// poll polls once and returns the changes as a text.
func (f *feed) poll(limit int) string {
	f.t.Helper()
	got, err := f.Poll(limit)
	require.NoError(f.t, err)
	return text(got)
}

func text(c shard.Changes) string {
	parts := []string{fmt.Sprintf("through=%d", c.Through)}
	for _, e := range c.Events {
		part := fmt.Sprintf("%d:%s=%s", e.Kv.ModRevision, e.Kv.Key, e.Kv.Value)
		if e.Type == mvccpb.Event_DELETE {
			part = fmt.Sprintf("%d:-%s", e.Kv.ModRevision, e.Kv.Key)
		}
		if e.PrevKv != nil {
			part += "(" + string(e.PrevKv.Value) + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, " ")
}

func key(k string) shard.Span    { return shard.PointSpan([]byte(k)) }
func prefix(p string) shard.Span { return shard.Span{Start: []byte(p), End: next(p)} }

func next(p string) []byte {
	end := slices.Clone([]byte(p))
	end[len(end)-1]++
	return end
}
