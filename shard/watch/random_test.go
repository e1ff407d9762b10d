package watch

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the random test; 0 draws one")
	stepsFlag = flag.Int("steps", 10000, "of the random test")
)

// splitKeys are where the shard is split; the last is where it ends at first.
var splitKeys = []string{"ab", "b", "bd", "c", "z"}

// subscriber is a feed and how far it has come.
type subscriber struct {
	*feed
	through shard.Revision
	// awaited are the floors for which ready has still to be called.
	awaited []shard.Revision
	due     bool           // ready was called, and it has not polled
	polling bool           // it reads the store while other things happen
	ended   bool           // the shard has given its keys away, or serves nothing any more
	last    shard.Revision // what it has to tell before its end at least
	most    shard.Revision // and at most: whoever has the keys then goes on from there
}

// promise is one that the shard's leader has made as of an entry of the log.
type promise struct {
	floor shard.Revision
	index uint64
}

// player does random things to a hub and a store, and holds each feed to what the store
// says it should have been given.
type player struct {
	*world
	*rand.Rand
	feeds    []*subscriber
	applying bool   // an update is under way: others do no more than to poll
	large    string // a value that fills the memory for events
	promises []promise
	heeded   shard.Revision // the highest that the hub has taken in
	away     shard.Revision // the floor of whoever has the keys that the shard has not
	given    shard.Revision // what it was when some were given away last
	failures int            // of the store, of which each ends a feed
}

func TestRandom(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with: go test ./shard/watch -run TestRandom -seed=%d -steps=%d", seed, *stepsFlag)
		}
	})
	p := &player{world: newWorld(t), Rand: rand.New(rand.NewPCG(seed, 0)), large: strings.Repeat("x", recentBytesMax)}
	p.hub.history = p.read
	for range *stepsFlag {
		p.step()
		p.checkReady()
	}
	if p.IntN(2) == 0 {
		p.end()
	}
	for len(p.feeds) > 0 { // all arrive in the end
		f := p.feeds[0]
		for f.through < p.floor() && len(p.feeds) > 0 && p.feeds[0] == f {
			p.poll(f)
		}
		if len(p.feeds) > 0 && p.feeds[0] == f {
			p.drop(f)
		}
	}
	require.Zero(t, p.hub.mu.subs)
	require.Empty(t, p.hub.mu.awaiting)
	require.Empty(t, p.hub.mu.index.keys)
	require.Empty(t, p.hub.mu.index.prefixes)
	require.Empty(t, p.hub.mu.index.lengths)
	require.Empty(t, p.hub.mu.index.ranges)
}

func (p *player) step() {
	switch n := p.IntN(1000); {
	case n < 340:
		p.update(nil)
	case n < 380:
		p.update(func() { p.view.Floor = p.view.Floor + shard.Revision(p.IntN(10)) })
	case n < 390:
		p.compaction()
	case n < 400:
		p.snapshot()
	case n < 405:
		p.flood()
	case n < 430:
		p.split()
	case n < 470:
		p.merge()
	case n < 480:
		p.freeze()
	case n < 500:
		p.thaw()
	case n < 510:
		p.elsewhere()
	case n < 560:
		p.promise()
	case n < 600:
		p.heed()
	case n < 605:
		p.fails = shard.ErrUnavailable
	case n < 700:
		p.begin()
	default:
		f := p.any()
		switch {
		case f == nil:
		case n < 720:
			p.drop(f)
		case n < 780:
			p.await(f)
		default:
			p.poll(f)
		}
	}
}

// any is a feed that is not being polled; nil if there is none.
func (p *player) any() *subscriber {
	idle := slices.DeleteFunc(slices.Clone(p.feeds), func(f *subscriber) bool { return f.polling })
	if len(idle) == 0 {
		return nil
	}
	return idle[p.IntN(len(idle))]
}

// floor is what the hub has to say of the floor.
func (p *player) floor() shard.Revision { return max(p.view.Floor, p.heeded) }

// bound is what every revision is above that an entry mints after those applied.
func (p *player) bound() shard.Revision {
	bound := p.view.Floor
	for _, m := range p.promises {
		if m.index <= p.view.Applied {
			bound = max(bound, m.floor)
		}
	}
	return bound
}

// mint returns a revision above a floor that no other transaction has.
func (p *player) mint(floor shard.Revision) shard.Revision {
	for rev := floor + 1 + shard.Revision(p.IntN(5)); ; rev++ {
		if len(p.between(shard.Everything(), rev-1, rev, false)) == 0 {
			return rev
		}
	}
}

// update applies some commands at once, and what else is to change after them. Sometimes others come in
// between, as they can.
func (p *player) update(change func()) {
	p.applying = true
	defer func() { p.applying = false }()
	b := p.hub.Collect()
	if p.IntN(8) == 0 {
		p.begin()
	}
	if f := p.any(); f != nil && p.IntN(8) == 0 {
		p.drop(f)
	}
	before := p.floor()
	events := p.changes()
	if change != nil {
		change()
	}
	p.expectEnds(before, b != nil, events)
	if f := p.any(); f != nil && p.IntN(8) == 0 {
		p.poll(f) // the store shows the changes before they are published
	}
	p.publish(b, events)
}

func (p *player) changes() (events []*mvccpb.Event) {
	for n := p.IntN(4); n > 0 && p.view.Descriptor != nil; n-- {
		list := p.list(true)
		events = append(events, p.write(p.mint(p.bound()), list...)...)
	}
	return events
}

// list makes up changes of keys that the shard has, or of keys that it has not.
func (p *player) list(own bool) (list []string) {
	for _, k := range p.Perm(6)[:1+p.IntN(4)] {
		c := string([]byte{'a' + byte(k/2), 'a' + byte(k)})
		if p.span().Contains([]byte(c)) != own {
			continue
		}
		if p.IntN(3) > 0 {
			c += fmt.Sprintf("=%d", p.IntN(100))
		}
		list = append(list, c)
	}
	return list
}

// span is what the shard has, frozen or not.
func (p *player) span() shard.Span {
	if f := p.view.Frozen; f != nil {
		return f.Descriptor.Span
	}
	return p.view.Descriptor.Span
}

// expectEnds notes which feeds an update ends that has come to where the view is now. Whoever
// was given all up to the floor before it tells that; or all of the new floor if the shard was frozen, and
// it is known that nothing else of the keys was changed.
func (p *player) expectEnds(before shard.Revision, collected bool, events []*mvccpb.Event) {
	for _, f := range p.feeds {
		if f.ended || p.view.Descriptor != nil && p.view.Descriptor.Span.ContainsSpan(f.o.Span) {
			continue
		}
		f.ended, f.most = true, p.given
		if p.view.Frozen != nil {
			f.most = p.floor()
		}
		if f.due = f.ready() || f.due; f.due || f.polling {
			continue
		}
		touched := !collected || slices.ContainsFunc(events, func(e *mvccpb.Event) bool { return f.o.Span.Contains(e.Kv.Key) })
		if f.last = before; p.view.Frozen != nil && !touched {
			f.last = p.floor()
		}
	}
}

// compaction may raise the floor.
func (p *player) compaction() {
	to := p.view.Floor - shard.Revision(p.IntN(40)) + shard.Revision(p.IntN(10))
	if p.view.Descriptor == nil {
		return
	}
	p.update(func() {
		p.view.Compacted = max(p.view.Compacted, to)
		p.view.Rev, p.view.Floor = max(p.view.Rev, to), max(p.view.Floor, to)
	})
}

// snapshot brings history that nobody collected, and perhaps a shard that has been split, merged,
// both, or frozen and thawed since.
func (p *player) snapshot() {
	before := p.floor()
	if f := p.view.Frozen; f != nil {
		p.view.Descriptor, p.view.Frozen = f.Descriptor, nil
	}
	p.changes()
	for n := p.IntN(3); n > 0; n-- {
		if end := splitKeys[p.IntN(len(splitKeys))]; p.IntN(2) == 0 {
			p.shrink(end)
		} else {
			p.grow(end)
		}
		p.changes()
	}
	p.view.Compacted = max(p.view.Compacted, p.view.Rev-shard.Revision(p.IntN(60)))
	p.expectEnds(before, false, nil)
	p.view.Applied++
	p.hub.Publish(nil, p.view)
}

// reshape has the shard have the keys up to end, under the next epoch.
func (p *player) reshape(end string) {
	d := *p.view.Descriptor
	d.Epoch, d.Span = d.Epoch+1, shard.Span{Start: d.Span.Start, End: []byte(end)}
	p.view.Descriptor = &d
}

// shrink gives keys away that the shard has, if it can.
func (p *player) shrink(key string) bool {
	if !p.span().Contains([]byte(key)) {
		return false
	}
	p.reshape(key)
	p.given = p.bound()
	p.away = max(p.away, p.given)
	return true
}

// grow takes keys back, some or all, that the shard has not, which were changed elsewhere meanwhile.
func (p *player) grow(end string) bool {
	if bytes.Compare([]byte(end), p.span().End) <= 0 {
		return false
	}
	for range p.IntN(4) {
		p.elsewhere()
	}
	p.reshape(end)
	p.view.Floor = max(p.view.Floor, p.away)
	p.view.Rev = max(p.view.Rev, p.away)
	return true
}

// split is a SPLIT, behind other commands and perhaps before some.
func (p *player) split() {
	if p.view.Descriptor == nil {
		return
	}
	p.update(func() {
		if p.shrink(splitKeys[p.IntN(len(splitKeys))]) {
			p.view.Floor += shard.Revision(p.IntN(3))
		}
	})
}

func (p *player) merge() {
	if p.view.Descriptor == nil {
		return
	}
	p.update(func() { p.grow(splitKeys[p.IntN(len(splitKeys))]) })
}

// elsewhere makes changes of keys that another shard has now.
func (p *player) elsewhere() {
	list := p.list(false)
	published := p.view
	rev := p.mint(p.away)
	if len(p.write(rev, list...)) > 0 {
		p.away = rev
	}
	p.view = published
}

func (p *player) freeze() {
	if p.view.Descriptor == nil {
		return
	}
	p.update(func() {
		p.view.Floor = p.bound() + shard.Revision(p.IntN(5))
		p.view.Frozen, p.view.Descriptor = &shard.Frozen{Descriptor: p.view.Descriptor}, nil
	})
}

func (p *player) thaw() {
	if f := p.view.Frozen; f != nil {
		p.update(func() { p.view.Descriptor, p.view.Frozen = f.Descriptor, nil })
	}
}

// flood pushes everything out of memory.
func (p *player) flood() {
	if p.view.Descriptor == nil {
		return
	}
	for _, c := range []string{"aa=" + p.large, "aa"} {
		b := p.hub.Collect()
		p.publish(b, p.write(p.mint(p.bound()), c))
	}
}

// promise is one of the leader, which may have applied more, and may be told of at once.
func (p *player) promise() {
	if p.view.Descriptor == nil {
		return
	}
	m := promise{p.bound() + shard.Revision(p.IntN(10)), p.view.Applied + uint64(p.IntN(3))}
	p.promises = append(p.promises, m)
	p.tell(m)
}

// heed tells of a promise once more, or at last.
func (p *player) heed() {
	if n := len(p.promises); n > 0 {
		p.tell(p.promises[max(0, n-1-p.IntN(3))])
	}
}

func (p *player) tell(m promise) {
	ok := m.index <= p.view.Applied
	if ok {
		p.heeded = max(p.heeded, m.floor)
	}
	require.Equal(p.t, ok, p.hub.Heed(m.floor, m.index), "W11")
}

func (p *player) begin() {
	spans := []shard.Span{
		key("aa"), key("ab"), key("cf"), prefix("a"), prefix("b"), prefix("ab"),
		{Start: []byte("a"), End: []byte("z")}, {Start: []byte("ab"), End: []byte("be")}, {Start: []byte("b"), End: []byte("b")},
	}
	span := spans[p.IntN(len(spans))]
	o := Options{
		Span: span, PrevKV: p.IntN(3) == 0,
		From: max(1, p.view.Floor+shard.Revision(p.IntN(60))-50),
	}
	if d := p.view.Descriptor; d == nil || !d.Span.ContainsSpan(span) {
		o.Epoch = testEpoch
		if d != nil {
			o.Epoch = d.Epoch
		}
		_, err := p.hub.Subscribe(o)
		require.Equal(p.t, p.view.WrongShard(testShard), err, "W8")
		return
	}
	p.feeds = append(p.feeds, &subscriber{feed: p.subscribe(o)})
}

func (p *player) drop(f *subscriber) {
	f.Close()
	f.Close()
	p.forget(f)
}

func (p *player) forget(f *subscriber) {
	p.feeds = slices.DeleteFunc(p.feeds, func(o *subscriber) bool { return o == f })
}

func (p *player) await(f *subscriber) {
	rev := p.floor() + shard.Revision(p.IntN(30)) - 3
	f.awaited = append(f.awaited, rev)
	f.Await(rev)
}

// end is the replica's.
func (p *player) end() {
	for _, f := range p.feeds {
		if !f.ended {
			f.ended, f.last, f.most = true, 0, p.floor()
			if f.due = f.ready() || f.due; !f.due {
				f.last = p.floor()
			}
		}
	}
	p.hub.End(shard.ErrStopped)
	p.checkReady()
	_, err := p.hub.Subscribe(Options{Epoch: testEpoch, Span: key("aa"), From: 1})
	require.ErrorIs(p.t, err, shard.ErrStopped)
}

// read is the store's history. Other things happen before it, and before its reader goes on.
func (p *player) read(span shard.Span, from, to shard.Revision, o mvcc.EventsOptions) ([]*mvccpb.Event, shard.Revision, error) {
	p.meanwhile()
	defer p.meanwhile()
	events, through, err := p.history(span, from, to, o)
	if p.fails != nil {
		p.fails, p.failures = nil, p.failures+1
	}
	return events, through, err
}

func (p *player) meanwhile() {
	for n := p.IntN(3); n > 0 && !p.applying; n-- {
		p.step()
	}
}

// poll checks W1 and W2: what is given is what the store has between the last Through and
// this one.
func (p *player) poll(f *subscriber) {
	f.ready()
	f.due, f.polling = false, true
	limit := 1 + p.IntN(6)
	got, err := f.Poll(limit)
	f.polling = false
	if err != nil {
		p.checkEnd(f, err)
		_, again := f.Poll(limit)
		require.Equal(p.t, err, again, "an end is final")
		p.forget(f)
		return
	}
	require.GreaterOrEqual(p.t, got.Through, f.through)
	require.LessOrEqual(p.t, got.Through, p.floor())
	require.True(p.t, !f.ended || got.Through <= f.most, "it speaks of what is another's (W2)")
	want := p.between(f.o.Span, max(f.through, f.o.From-1), got.Through, f.o.PrevKV)
	require.Len(p.t, got.Events, len(want), "%s from %d: at %d of %d", f.o.Span, f.o.From, f.through, got.Through)
	for i, e := range got.Events {
		require.True(p.t, proto.Equal(want[i], e), "%v instead of %v", e, want[i])
	}
	if n := len(got.Events); n > limit {
		require.Equal(p.t, got.Events[limit-1].Kv.ModRevision, got.Events[n-1].Kv.ModRevision, "more than the limit, and not of one revision")
	}
	f.through = got.Through
	f.awaited = slices.DeleteFunc(f.awaited, func(rev shard.Revision) bool { return rev <= f.through })
}

// checkEnd checks that there is a reason for the end of a feed, and that it has come far before.
func (p *player) checkEnd(f *subscriber, err error) {
	require.GreaterOrEqual(p.t, max(f.through, f.o.From-1), f.last, "%s from %d: it was idle, and could go on elsewhere behind that (W2)", f.o.Span, f.o.From)
	if errors.Is(err, shard.ErrCompacted) {
		require.Less(p.t, max(f.through+1, f.o.From), p.view.Compacted, "nothing it needs was compacted")
		return
	}
	if errors.Is(err, shard.ErrUnavailable) {
		p.failures--
		require.GreaterOrEqual(p.t, p.failures, 0, "the store did not fail")
		return
	}
	require.True(p.t, f.ended, "%v", err)
}

// checkReady checks W6: whoever could be given something has been called.
func (p *player) checkReady() {
	for _, f := range p.feeds {
		f.due = f.ready() || f.due
		if f.ended {
			require.True(p.t, f.due, "%s from %d: nobody said that it has ended", f.o.Span, f.o.From)
			continue
		}
		pending := len(p.between(f.o.Span, max(f.through, f.o.From-1), p.view.Floor, false)) > 0
		if pending || slices.ContainsFunc(f.awaited, func(rev shard.Revision) bool { return rev <= p.floor() }) {
			require.True(p.t, f.due, "%s from %d: at %d of %d nobody called ready", f.o.Span, f.o.From, f.through, p.view.Floor)
		}
	}
}
