package peer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// fakePublisher has one feed, which a test fills.
type fakePublisher struct {
	mu      sync.Mutex
	sub     router.Subscription
	ready   func()
	refuse  error
	events  []*mvccpb.Event
	through shard.Revision
	end     error
	awaited shard.Revision
	polled  int // events
	polls   int
	closed  bool
}

func (f *fakePublisher) Subscribe(sub router.Subscription, ready func()) (router.Feed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sub, f.ready = sub, ready
	if f.refuse != nil {
		return nil, f.refuse
	}
	return f, nil
}

func (f *fakePublisher) Poll(max int) (shard.Changes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls++
	if len(f.events) == 0 && f.end != nil {
		return shard.Changes{}, f.end
	}
	n := min(max, len(f.events))
	for n > 0 && n < len(f.events) && f.events[n].Kv.ModRevision == f.events[n-1].Kv.ModRevision {
		n++
	}
	changes := shard.Changes{Events: f.events[:n:n], Through: f.through}
	f.events = f.events[n:]
	f.polled += n
	if len(f.events) > 0 {
		changes.Through = shard.Revision(changes.Events[n-1].Kv.ModRevision)
	}
	if len(f.events) > 0 || f.end != nil {
		f.ready()
	}
	return changes, nil
}

func (f *fakePublisher) Await(rev shard.Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awaited = rev
	if f.through >= rev {
		f.ready()
	}
}

func (f *fakePublisher) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// do changes what the feed has, and tells.
func (f *fakePublisher) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.ready()
}

func event(rev int64, key, value string) *mvccpb.Event {
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: rev}, PrevKv: &mvccpb.KeyValue{Key: []byte(key)}}
}

// reader takes from a feed.
type reader struct {
	t       *testing.T
	feed    router.Feed
	kick    chan struct{}
	events  []*mvccpb.Event
	through shard.Revision
	err     error
}

func (r *reader) ready() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// until takes until done says so.
func (r *reader) until(max int, done func() bool) {
	r.t.Helper()
	for {
		got, err := r.feed.Poll(max)
		if r.err = err; err == nil {
			r.events = append(r.events, got.Events...)
			require.GreaterOrEqual(r.t, got.Through, r.through)
			r.through = got.Through
			if n := len(got.Events); n > 0 {
				require.GreaterOrEqual(r.t, got.Through, shard.Revision(got.Events[n-1].Kv.ModRevision))
			}
		}
		if done() {
			return
		}
		select {
		case <-r.kick:
		case <-time.After(10 * time.Second):
			r.t.Fatalf("not done after 10 s with %d events, through %d, error %v", len(r.events), r.through, r.err)
		}
	}
}

func subscription() router.Subscription {
	return router.Subscription{Shard: 7, Epoch: 3, Span: shard.Span{Start: []byte("a"), End: []byte("m")}, From: 5, PrevKV: true}
}

func newReader(t *testing.T, from *fakePublisher) (*reader, *pair) {
	t.Helper()
	p := newPair(t, &fakeExecutor{})
	p.node.from = from
	p.node.revisions.Store(77)
	r := &reader{t: t, kick: make(chan struct{}, 1)}
	feed, err := p.client.Subscribe(t.Context(), subscription(), r.ready)
	require.NoError(t, err)
	r.feed = feed
	t.Cleanup(feed.Close)
	return r, p
}

// What a feed has comes over: subscription, events, how far they reach, and what the
// other node has seen (N2).
func TestSubscribe(t *testing.T) {
	from := &fakePublisher{through: 9}
	r, p := newReader(t, from)
	require.Equal(t, subscription(), from.sub)
	r.until(10, func() bool { return r.through == 9 })
	require.EqualValues(t, 77, p.mine.Load())

	want := []*mvccpb.Event{event(10, "a", "1"), event(10, "b", "2"), event(12, "a", "3")}
	p.node.revisions.Store(99)
	from.do(func() { from.events, from.through = want, 15 })
	r.until(10, func() bool { return r.through == 15 })
	require.Len(t, r.events, 3)
	for i, e := range want {
		require.True(t, proto.Equal(e, r.events[i]))
	}
	require.EqualValues(t, 99, p.mine.Load())

	// Without events it is told too, because somebody may wait for it.
	r.feed.Await(20)
	from.do(func() { from.through = 19 })
	from.do(func() { from.through = 20 })
	r.until(10, func() bool { return r.through == 20 })
	r.feed.Await(20)
	<-r.kick

	r.feed.Close()
	require.Eventually(t, func() bool {
		from.mu.Lock()
		defer from.mu.Unlock()
		return from.closed
	}, 10*time.Second, time.Millisecond)
}

// Whole revisions, also where a revision is more than a frame may have.
func TestSubscribeKeepsRevisionsWhole(t *testing.T) {
	from := &fakePublisher{}
	r, _ := newReader(t, from)
	var want []*mvccpb.Event
	big := strings.Repeat("v", frameBytesMax/3)
	for rev := int64(1); rev <= 4; rev++ {
		for i := range 8 {
			want = append(want, event(rev, fmt.Sprint("k", i), big))
		}
	}
	from.do(func() { from.events, from.through = want, 4 })
	r.until(1, func() bool {
		require.Zero(t, len(r.events)%8)
		return r.through == 4
	})
	require.Len(t, r.events, len(want))
}

// Errors keep their meaning: who gets one goes on elsewhere, or not.
func TestSubscribeErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want func(error) bool
	}{
		{&shard.CompactedError{Compacted: 12}, func(err error) bool {
			e, ok := err.(*shard.CompactedError)
			return ok && e.Compacted == 12
		}},
		{&shard.WrongShardError{Shard: 7, Descriptors: []*shard.Descriptor{{ID: 8}}}, func(err error) bool {
			e, ok := err.(*shard.WrongShardError)
			return ok && e.Descriptors[0].ID == 8
		}},
		{fmt.Errorf("closing: %w", shard.ErrStopped), func(err error) bool { return err.Error() == "closing: "+shard.ErrStopped.Error() }},
		{&shard.NoReplicaError{Shard: 7}, func(err error) bool { _, ok := err.(*shard.NoReplicaError); return ok }},
	} {
		from := &fakePublisher{}
		r, p := newReader(t, from)
		from.do(func() { from.events, from.through, from.end = []*mvccpb.Event{event(5, "a", "1")}, 5, c.err })
		r.until(10, func() bool { return r.err != nil })
		require.True(t, c.want(r.err), "%v", r.err)
		require.Len(t, r.events, 1, "what came before the end is given first")

		from.refuse = c.err
		_, err := p.client.Subscribe(t.Context(), subscription(), func() {})
		require.True(t, c.want(err), "%v", err)
	}
}

// A feed tells how far it has come before its end, also when nobody has asked since: who goes on
// from an earlier revision could ask for history that is gone.
func TestSubscribeTellsHowFarItHadCome(t *testing.T) {
	from := &fakePublisher{}
	r, _ := newReader(t, from)
	from.do(func() { from.events, from.through = []*mvccpb.Event{event(5, "a", "1")}, 5 })
	r.until(10, func() bool { return r.through == 5 })
	from.do(func() { from.through = 40 })
	require.Eventually(t, func() bool {
		from.mu.Lock()
		defer from.mu.Unlock()
		return from.awaited == 41
	}, 10*time.Second, time.Millisecond)
	from.do(func() { from.end = shard.ErrStopped })
	<-r.kick
	r.until(10, func() bool { return r.err != nil })
	require.ErrorIs(t, r.err, shard.ErrStopped)
	require.EqualValues(t, 40, r.through)
}

// A node that goes away is another replica's turn.
func TestSubscribeAtANodeThatIsGone(t *testing.T) {
	from := &fakePublisher{}
	r, p := newReader(t, from)
	p.server.Stop()
	r.until(10, func() bool { return r.err != nil })
	require.ErrorIs(t, r.err, shard.ErrUnavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := p.client.Subscribe(ctx, subscription(), func() {})
	require.ErrorIs(t, err, shard.ErrUnavailable)
}

// An answer of gRPC itself, of a node that is only starting for example, is no end of
// the history.
func TestSubscribeAtANodeThatStarts(t *testing.T) {
	p := newPair(t, &fakeExecutor{})
	_, err := p.client.Subscribe(t.Context(), subscription(), func() {})
	require.ErrorIs(t, err, shard.ErrUnavailable)
}

// Who does not read is not polled for: the stream's flow control holds the node back, in
// bounded memory (N3). All is there once it is read.
func TestSubscribeWithoutReading(t *testing.T) {
	from := &fakePublisher{}
	r, _ := newReader(t, from)
	const events = 200_000
	var many []*mvccpb.Event
	value := strings.Repeat("v", 200)
	for rev := range int64(events) {
		many = append(many, event(rev+1, "a", value))
	}
	from.do(func() { from.events, from.through = many, events })
	last := -1
	require.Eventually(t, func() bool { // it stops by itself
		from.mu.Lock()
		defer from.mu.Unlock()
		still := from.polled == last && last > 0
		last = from.polled
		return still
	}, 10*time.Second, 50*time.Millisecond)
	require.Less(t, last, events/2)
	r.until(100, func() bool { return r.through == events })
	require.Len(t, r.events, events)
}

// Nor does a feed of large events collect many of them (N3).
func TestSubscribeToLargeEventsWithoutReading(t *testing.T) {
	from := &fakePublisher{}
	r, _ := newReader(t, from)
	const events = 200
	var many []*mvccpb.Event
	value := strings.Repeat("v", 1<<20)
	for rev := range int64(events) {
		many = append(many, event(rev+1, "a", value))
	}
	from.do(func() { from.events, from.through = many, events })
	f := r.feed.(*feed)
	require.Eventually(t, f.full, 10*time.Second, time.Millisecond)
	f.mu.Lock()
	require.LessOrEqual(t, len(f.mu.changes.Events), 2*bufferedBytesMax>>20)
	f.mu.Unlock()
	r.until(3, func() bool { return r.through == events })
	require.Len(t, r.events, events)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Zero(t, f.mu.bytes)
}

// A feed that is full and is closed by somebody else than its reader ends for the reader too, behind what it has.
func TestSubscribeClosedWhileFull(t *testing.T) {
	from := &fakePublisher{}
	r, _ := newReader(t, from)
	var many []*mvccpb.Event
	for rev := range int64(2 * bufferedMax) {
		many = append(many, event(rev+1, "a", "v"))
	}
	from.do(func() { from.events, from.through = many, 2*bufferedMax })
	require.Eventually(t, r.feed.(*feed).full, 10*time.Second, time.Millisecond)
	r.feed.Close()
	r.until(100, func() bool { return r.err != nil })
	require.ErrorIs(t, r.err, shard.ErrUnavailable)
}

// A floor that rises without events is told at intervals, not each time.
func TestSubscribeTellsProgressAtIntervals(t *testing.T) {
	from := &fakePublisher{}
	r, _ := newReader(t, from)
	began := time.Now()
	for rev := shard.Revision(1); time.Since(began) < 100*time.Millisecond; rev++ {
		from.do(func() { from.through = rev })
	}
	from.mu.Lock()
	polls, last := from.polls, from.through
	from.mu.Unlock()
	require.LessOrEqual(t, polls, int(time.Since(began)/throughPause)+2)
	r.feed.Await(last)
	r.until(1, func() bool { return r.through == last })
}
