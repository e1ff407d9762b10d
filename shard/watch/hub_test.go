package watch

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// W3: changes are published while a feed reads the store. Publish would deadlock here if
// it waited for that, and the feed is given what was published meanwhile, once.
func TestPublishDuringACatchUp(t *testing.T) {
	for _, meanwhile := range []struct {
		name    string
		changes func(w *world)
	}{
		{"a change", func(w *world) { w.put("b=2") }},
		{"a change of another key", func(w *world) { w.put("c=2") }},
		{"more than memory holds", func(w *world) { w.put("b=" + string(make([]byte, recentBytesMax))) }},
		{"a snapshot", func(w *world) { w.write(w.view.Floor+1, "b=2"); w.hub.Publish(nil, w.view) }},
		{"a closed floor", func(w *world) { w.closeTo(w.view.Floor + 10) }},
	} {
		t.Run(meanwhile.name, func(t *testing.T) {
			w := newWorld(t)
			first := w.put("b=1")
			history := w.hub.history
			w.hub.history = func(span shard.Span, from, to shard.Revision, o mvcc.EventsOptions) ([]*mvccpb.Event, shard.Revision, error) {
				events, through, err := history(span, from, to, o)
				meanwhile.changes(w)
				w.hub.history = history
				return events, through, err
			}
			f := w.subscribe(Options{Span: key("b"), From: first})
			var got []*mvccpb.Event
			for f.ready() {
				c, err := f.Poll(10)
				require.NoError(t, err)
				got = append(got, c.Events...)
			}
			want := w.between(key("b"), first-1, w.view.Floor, false)
			require.Len(t, got, len(want))
			for i := range want {
				require.Equal(t, want[i].Kv.ModRevision, got[i].Kv.ModRevision)
			}
			require.True(t, f.armed, "live again")
		})
	}
}

// W10: however many watch a span, what has changed is gathered once; whoever wants
// something else, or was elsewhere, gets its own. Nothing is kept when all have it (W3).
func TestThoseWhoWatchTheSameShare(t *testing.T) {
	w := newWorld(t)
	a, b := w.subscribe(Options{Span: prefix("b"), From: 2}), w.subscribe(Options{Span: prefix("b"), From: 2})
	prev, late := w.subscribe(Options{Span: prefix("b"), From: 2, PrevKV: true}), w.subscribe(Options{Span: prefix("b"), From: 2})
	list := func(f *feed) []*mvccpb.Event {
		got, err := f.Poll(10)
		require.NoError(t, err)
		return got.Events
	}
	w.put("b=1")
	first := list(a)
	require.Len(t, first, 1)
	require.Same(t, &first[0], &list(b)[0])
	require.NotSame(t, &first[0], &list(prev)[0])

	w.put("b=2", "bb=2")
	second := list(a)
	require.Len(t, second, 2)
	require.Len(t, list(late), 3, "it had not been given the first")
	w.put("c=3") // of no concern to them, though the floor rises
	require.Equal(t, "through=4 3:b=2 3:bb=2", b.poll(10))
	require.Equal(t, "through=4 3:b=2(1) 3:bb=2", prev.poll(10))
	require.Empty(t, a.group.answer.events)

	w.put("b=5")
	require.Len(t, list(a), 1)
	w.write(w.view.Floor+1, "b=6")
	w.hub.Publish(nil, w.view) // as a snapshot
	require.Len(t, list(b), 2)

	w.put("b=7")
	list(a)
	require.NotEmpty(t, a.group.answer.events)
	for _, f := range []*feed{b, prev, late} {
		f.Close()
	}
	require.Empty(t, a.group.answer.events)
}

// W3: a subscription that is not polled is one number, and not in anybody's way. Memory
// holds a bounded past, however large it comes.
func TestUnpolledFeedsAreForgotten(t *testing.T) {
	w := newWorld(t)
	var feeds []*feed
	for range 10 {
		feeds = append(feeds, w.subscribe(Options{Span: prefix("b"), From: 2}))
	}
	for i := range 3 * recentEventsMax {
		w.put(fmt.Sprintf("b=%d", i))
	}
	for _, f := range feeds {
		require.Equal(t, 1, f.called)
		require.Zero(t, f.group.armed)
	}
	require.Len(t, w.hub.mu.recent.records, recentEventsMax)
	for range 20 {
		w.put("b=" + string(make([]byte, recentBytesMax/8)))
		require.LessOrEqual(t, w.hub.mu.recent.bytes, recentBytesMax)
		// What the array still holds of what was dropped is bounded too.
		require.LessOrEqual(t, w.hub.mu.recent.cut, recentBytesMax)
	}
	for _, f := range feeds {
		f.Close()
	}
	require.Empty(t, w.hub.mu.recent.records, "nobody watches")
	require.Nil(t, w.hub.Collect())
}

// All who watch share one copy of a change.
func TestEventsAreShared(t *testing.T) {
	w := newWorld(t)
	a := w.subscribe(Options{Span: key("b"), From: 2, PrevKV: true})
	b := w.subscribe(Options{Span: prefix("b"), From: 2, PrevKV: true})
	w.put("b=1")
	one, err := a.Poll(1)
	require.NoError(t, err)
	other, err := b.Poll(1)
	require.NoError(t, err)
	require.Same(t, one.Events[0], other.Events[0])
}

// W9: a change is looked up, not offered around.
func TestIndexLooksUp(t *testing.T) {
	x := newIndex(nil)
	for i := range 10_000 {
		x.join(key(fmt.Sprintf("k%d", i)), &Subscription{})
		x.join(prefix(fmt.Sprintf("p%d/", i)), &Subscription{})
	}
	asked := 0
	x.each([]byte("k77"), func(*group) { asked++ })
	x.each([]byte("p77/x"), func(*group) { asked++ })
	x.each([]byte("other"), func(*group) { asked++ })
	require.Equal(t, 2, asked)
	require.Empty(t, x.ranges)
}

// The index finds exactly the groups whose span holds the key.
func TestIndexFindsAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func() []byte {
		out := make([]byte, 1+r.IntN(3))
		for i := range out {
			out[i] = []byte{0, 'a', 'b', 0xfe, 0xff}[r.IntN(5)]
		}
		return out
	}
	x := newIndex(nil)
	members := make(map[*Subscription]bool)
	for range 3000 {
		if r.IntN(3) > 0 {
			start := word()
			spans := []shard.Span{shard.PointSpan(start), prefix(string(start)), {Start: start, End: word()}, {Start: start}, {End: start}, {}}
			s := &Subscription{}
			x.join(spans[r.IntN(len(spans))], s)
			members[s] = true
		}
		for s := range members {
			x.leave(s)
			delete(members, s)
			break
		}
		k, found := word(), make(map[*Subscription]bool)
		x.each(k, func(g *group) {
			for _, s := range g.members {
				require.False(t, found[s], "found twice")
				found[s] = true
			}
		})
		listed := 0
		for _, g := range x.all() {
			listed += len(g.members)
		}
		require.Len(t, members, listed)
		for s := range members {
			require.Equal(t, s.group.span.Contains(k), found[s], "%q in %s", k, s.group.span)
			delete(found, s)
		}
		require.Empty(t, found, "these watch no more")
	}
}

// Feeds on goroutines of their own beside one that publishes; each is given all of its
// span, in order, and the last of them knows that there is no more.
func TestFeedsBesideAWriter(t *testing.T) {
	const updates = 1500
	var mu sync.Mutex // of the store, which knows no goroutines
	w := newWorld(t)
	history := w.hub.history
	w.hub.history = func(span shard.Span, from, to shard.Revision, o mvcc.EventsOptions) ([]*mvccpb.Event, shard.Revision, error) {
		mu.Lock()
		defer mu.Unlock()
		return history(span, from, to, o)
	}
	final := shard.Revision(2 + updates)
	var feeds sync.WaitGroup
	for i := range 8 {
		ready := make(chan struct{}, 1)
		span := []shard.Span{key("ba"), prefix("b"), {Start: []byte("a"), End: []byte("z")}, key("q")}[i%4]
		s, err := w.hub.Subscribe(Options{Epoch: testEpoch, Span: span, From: 2, PrevKV: i%3 == 0, Ready: func() {
			select {
			case ready <- struct{}{}:
			default:
			}
		}})
		require.NoError(t, err)
		s.Await(final)
		feeds.Go(func() {
			var got []*mvccpb.Event
			through := shard.Revision(0)
			for through < final {
				<-ready
				c, err := s.Poll(1 + i)
				if err != nil {
					t.Errorf("poll: %v", err)
					return
				}
				got, through = append(got, c.Events...), c.Through
			}
			s.Close()
			mu.Lock()
			want := w.between(span, 1, final, i%3 == 0)
			mu.Unlock()
			if len(want) != len(got) {
				t.Errorf("feed %d of %s was given %d of %d changes", i, span, len(got), len(want))
				return
			}
			for j := range want {
				if want[j].Kv.ModRevision != got[j].Kv.ModRevision || (want[j].PrevKv == nil) != (got[j].PrevKv == nil) {
					t.Errorf("feed %d: %v instead of %v", i, got[j], want[j])
					return
				}
			}
		})
	}
	for n := range updates {
		b := w.hub.Collect()
		mu.Lock()
		rev := w.view.Floor + 1
		events := w.write(rev, fmt.Sprintf("b%c=%d", 'a'+n%3, n), fmt.Sprintf("c=%d", n))
		mu.Unlock()
		w.publish(b, events)
	}
	w.closeTo(final)
	feeds.Wait()
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := newWorld(t)
	w.hub.metrics = NewMetrics(reg)
	values := func() map[string]float64 {
		families, err := reg.Gather()
		require.NoError(t, err)
		out := make(map[string]float64)
		for _, f := range families {
			m := f.Metric[0]
			out[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		return out
	}
	f := w.subscribe(Options{Span: key("b"), From: 2})
	w.put("b=1")
	w.put("b=" + string(make([]byte, recentBytesMax)))
	f.poll(1)
	f.poll(1)
	require.Equal(t, map[string]float64{
		"flotilla_watch_subscriptions": 1, "flotilla_watch_events_total": 2,
		"flotilla_watch_history_reads_total": 2, "flotilla_watch_fell_behind_total": 1,
	}, values())
	f.Close()
	require.Zero(t, values()["flotilla_watch_subscriptions"])
}

// W11: a promise counts when what it follows has been published, and from then on for good,
// whatever is told of the floor as applied.
func TestPromises(t *testing.T) {
	w := newWorld(t)
	f := w.subscribe(Options{Span: key("b"), From: 2})
	first := w.put("b=1")
	next := w.view.Applied + 1
	require.False(t, w.hub.Heed(first+10, next), "the next entry may have a change up to it")
	require.True(t, f.ready())
	require.Equal(t, fmt.Sprintf("through=%d %d:b=1", first, first), f.poll(10))
	f.Await(first + 10)
	require.False(t, f.ready())

	second := w.put("b=2")
	require.True(t, w.hub.Heed(first+10, next))
	require.True(t, f.ready())
	require.Equal(t, fmt.Sprintf("through=%d %d:b=2", first+10, second), f.poll(10))
	w.closeTo(second + 1) // lower than what was promised
	f.Await(first + 10)
	require.True(t, f.ready())
	require.Equal(t, fmt.Sprintf("through=%d", first+10), f.poll(10))
	require.True(t, w.hub.Heed(first+5, next), "one that comes late takes nothing back")
	require.Equal(t, first+10, w.hub.mu.recent.floor)
	w.hub.Publish(nil, w.view) // a snapshot
	require.Equal(t, first+10, w.hub.mu.recent.floor)
	w.view.Floor = first + 10
	third := w.put("b=3")
	require.True(t, f.ready())
	require.Equal(t, fmt.Sprintf("through=%d %d:b=3", third, third), f.poll(10))
}
