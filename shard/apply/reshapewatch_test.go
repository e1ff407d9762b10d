package apply_test

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// follower watches a part of the keyspace, whosever it is: a feed that ends is followed by others
// right behind what it had given.
type follower struct {
	o    watch.Options // From is where got begins
	id   shard.ID
	feed *watcher // nil while there is none
	// got is what it was given, all up to through.
	got     []*mvccpb.Event
	through shard.Revision
}

// watch has somebody begin to watch, ask, or leave. The shard at hand is another then.
func (r *reshaping) watch() {
	n := len(r.followers)
	if n < 8 && r.oneIn(4) {
		a, b := r.key(), r.key()
		if bytes.Compare(a, b) > 0 {
			a, b = b, a
		}
		o := watch.Options{Span: shard.Span{Start: a, End: b}, PrevKV: r.oneIn(3), From: max(1, r.revision())}
		if r.oneIn(3) {
			o.Span = shard.PointSpan(a)
		}
		if o.Span = o.Span.Intersect(shard.Span{Start: []byte("b"), End: []byte("y")}); !o.Span.Empty() {
			r.followers = append(r.followers, &follower{o: o, through: o.From - 1})
		}
		return
	}
	if n == 0 {
		return
	}
	f := r.followers[r.IntN(n)]
	if r.oneIn(30) {
		r.leave(f)
		return
	}
	r.ask(f)
}

// ask gives a follower what its feed has, or a feed.
func (r *reshaping) ask(f *follower) {
	if f.feed == nil && !r.subscribe(f) {
		return
	}
	f.feed.called = 0
	got, err := f.feed.Poll(1 + r.IntN(7))
	switch {
	case err == nil:
		f.got, f.through = append(f.got, got.Events...), max(f.through, got.Through)
	case errors.Is(err, shard.ErrCompacted):
		r.turn(f.id)
		require.Less(r.t, f.through+1, r.machine.View().Compacted, "nothing it needs was compacted")
		r.leave(f)
	default: // elsewhere, or later
		f.feed = nil
		r.checkFollower(f)
	}
}

// subscribe opens a feed at whoever has the follower's first key. What others have becomes another's.
func (r *reshaping) subscribe(f *follower) bool {
	m := r.models[slices.IndexFunc(r.models, func(m *model) bool { return m.span.Contains(f.o.Span.Start) })]
	r.checkFollower(f)
	f.o.From = f.through + 1
	if part := f.o.Span.Intersect(m.span); !part.Equal(f.o.Span) {
		rest := &follower{o: f.o, through: f.through}
		rest.o.Span.Start = m.span.End
		f.o.Span = part
		r.followers = append(r.followers, rest)
	}
	f.id = m.id
	r.turn(m.id)
	if r.machine.View().Frozen != nil {
		return false
	}
	f.feed = r.follow(f.o)
	return true
}

func (r *reshaping) leave(f *follower) {
	r.checkFollower(f)
	if f.feed != nil {
		f.feed.Close()
	}
	r.followers = slices.DeleteFunc(r.followers, func(o *follower) bool { return o == f })
}

// dropFeeds is when the machines they were of are gone.
func (r *reshaping) dropFeeds() {
	for _, f := range r.followers {
		f.feed = nil
	}
}

// checkFollower compares what a follower was given with what it should have been, and begins anew.
func (r *reshaping) checkFollower(f *follower) {
	require.True(r.t, slices.IsSortedFunc(f.got, func(a, b *mvccpb.Event) int { return cmp.Compare(a.Kv.ModRevision, b.Kv.ModRevision) }))
	byKey := func(a, b *mvccpb.Event) int {
		return cmp.Or(cmp.Compare(a.Kv.ModRevision, b.Kv.ModRevision), bytes.Compare(a.Kv.Key, b.Kv.Key))
	}
	slices.SortFunc(f.got, byKey)
	var want []*mvccpb.Event
	for _, m := range r.models {
		want = append(want, m.events(f.o.Span.Intersect(m.span), f.o.From, f.through, f.o.PrevKV)...)
	}
	slices.SortFunc(want, byKey)
	requireEvents(r.t, want, f.got, "%s from %s through %s", f.o.Span, f.o.From, f.through)
	f.o.From, f.got = f.through+1, nil
}

// events are what was changed of the span in revisions [from, to].
func (m *model) events(span shard.Span, from, to shard.Revision, prevKV bool) (events []*mvccpb.Event) {
	if span.Empty() {
		return nil
	}
	for i, s := range m.history {
		if i == 0 || s.rev < from || s.rev > to {
			continue
		}
		before := m.history[i-1].kvs
		add := func(e *mvccpb.Event) {
			if prevKV {
				e.PrevKv = before[string(e.Kv.Key)]
			}
			events = append(events, e)
		}
		for _, kv := range inSpan(s.kvs, span) {
			if old := before[string(kv.Key)]; old.GetModRevision() != kv.ModRevision {
				add(&mvccpb.Event{Kv: kv})
			}
		}
		for _, kv := range inSpan(before, span) {
			if s.kvs[string(kv.Key)] == nil {
				add(&mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: kv.Key, ModRevision: int64(s.rev)}})
			}
		}
	}
	return events
}

// checkFollowers has all followers come to the end.
func (r *reshaping) checkFollowers() {
	for len(r.followers) > 0 {
		f := r.followers[0]
		if r.ask(f); f.feed == nil || !slices.Contains(r.followers, f) {
			continue
		}
		i := slices.IndexFunc(r.models, func(m *model) bool { return m.id == f.id })
		if i < 0 {
			continue // merged into its neighbour: the feed has told how far it came, and ends when asked again
		}
		r.turn(f.id)
		floor := r.machine.View().Floor
		if f.through >= floor {
			r.leave(f)
			continue
		}
		m := r.models[i]
		missing := m.events(f.o.Span, max(f.o.From, f.through+1), floor, false)
		require.True(r.t, f.feed.called > 0 || len(missing) == 0, "at %s of %s nobody called ready (W6)", f.through, floor)
		f.feed.Await(floor)
		require.NotZero(r.t, f.feed.called)
	}
}
