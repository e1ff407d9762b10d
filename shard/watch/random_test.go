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
	due     bool // ready was called, and it has not polled
	moved   bool // the shard has given its keys away
}

// player does random things to a hub and a store, and holds each feed to what the store
// says it should have been given.
type player struct {
	*world
	*rand.Rand
	feeds []*subscriber
	large string // a value that fills the memory for events
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
	for range *stepsFlag {
		p.step()
		p.checkReady()
	}
	for len(p.feeds) > 0 { // all arrive in the end
		f := p.feeds[0]
		for f.through < p.view.Floor && len(p.feeds) > 0 && p.feeds[0] == f {
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
	case n < 350:
		p.update()
	case n < 400:
		p.closeTo(p.view.Floor + shard.Revision(p.IntN(10)))
	case n < 410:
		p.compact(p.view.Floor - shard.Revision(p.IntN(40)))
	case n < 415: // a snapshot: history that nobody collected
		p.changes()
		p.view.Compacted = max(p.view.Compacted, p.view.Floor-shard.Revision(p.IntN(60)))
		p.hub.Publish(nil, p.view)
	case n < 420:
		p.flood()
	case n < 450:
		p.split()
	case n < 490:
		p.merge()
	case n < 590:
		p.begin()
	case len(p.feeds) == 0:
	case n < 620:
		p.drop(p.any())
	case n < 700:
		p.await(p.any())
	default:
		p.poll(p.any())
	}
}

func (p *player) any() *subscriber { return p.feeds[p.IntN(len(p.feeds))] }

// update applies some commands at once. Sometimes others come in between, as they can.
func (p *player) update() {
	b := p.hub.Collect()
	if p.IntN(8) == 0 {
		p.begin()
	}
	if p.IntN(8) == 0 && len(p.feeds) > 0 {
		p.drop(p.any())
	}
	p.publish(b, p.changes())
}

func (p *player) changes() (events []*mvccpb.Event) {
	for range p.IntN(4) {
		list := p.list(true)
		events = append(events, p.write(p.view.Floor+1+shard.Revision(p.IntN(5)), list...)...)
	}
	return events
}

// list makes up changes of keys that the shard has, or of keys that it has not.
func (p *player) list(own bool) (list []string) {
	for _, k := range p.Perm(6)[:1+p.IntN(4)] {
		c := string([]byte{'a' + byte(k/2), 'a' + byte(k)})
		if p.view.Descriptor.Span.Contains([]byte(c)) != own {
			continue
		}
		if p.IntN(3) > 0 {
			c += fmt.Sprintf("=%d", p.IntN(100))
		}
		list = append(list, c)
	}
	return list
}

// split gives keys away that the shard has.
func (p *player) split() {
	d := p.view.Descriptor
	key := []byte(splitKeys[p.IntN(len(splitKeys))])
	if !d.Span.Contains(key) {
		return
	}
	p.reshape(shard.Span{Start: d.Span.Start, End: key}, p.view.Floor+shard.Revision(p.IntN(3)))
	for _, f := range p.feeds {
		f.moved = f.moved || !p.view.Descriptor.Span.ContainsSpan(f.o.Span)
	}
}

// merge takes keys back, some or all, which were changed elsewhere meanwhile.
func (p *player) merge() {
	d := p.view.Descriptor
	end := []byte(splitKeys[p.IntN(len(splitKeys))])
	if bytes.Compare(end, d.Span.End) <= 0 {
		return
	}
	for range p.IntN(4) {
		p.elsewhere(p.list(false)...)
	}
	p.reshape(shard.Span{Start: d.Span.Start, End: end}, 0)
}

// flood pushes everything out of memory.
func (p *player) flood() {
	p.put("aa=" + p.large)
	p.put("aa")
}

func (p *player) begin() {
	spans := []shard.Span{
		key("aa"), key("ab"), key("cf"), prefix("a"), prefix("b"), prefix("ab"),
		{Start: []byte("a"), End: []byte("z")}, {Start: []byte("ab"), End: []byte("be")}, {Start: []byte("b"), End: []byte("b")},
	}
	span := spans[p.IntN(len(spans))]
	if !p.view.Descriptor.Span.ContainsSpan(span) {
		return
	}
	o := Options{
		Span: span, PrevKV: p.IntN(3) == 0,
		From: max(1, p.view.Floor+shard.Revision(p.IntN(60))-50),
	}
	s := &subscriber{feed: p.subscribe(o)}
	p.feeds = append(p.feeds, s)
}

func (p *player) drop(f *subscriber) {
	f.Close()
	f.Close()
	p.forget(f)
}

func (p *player) forget(f *subscriber) {
	for i, o := range p.feeds {
		if o == f {
			p.feeds[i] = p.feeds[len(p.feeds)-1]
			p.feeds = p.feeds[:len(p.feeds)-1]
			return
		}
	}
}

func (p *player) await(f *subscriber) {
	rev := p.view.Floor + shard.Revision(p.IntN(30)) - 3
	f.awaited = append(f.awaited, rev)
	f.Await(rev)
}

// poll checks W1 and W2: what is given is what the store has between the last Through and
// this one.
func (p *player) poll(f *subscriber) {
	f.due = false
	limit := 1 + p.IntN(6)
	got, err := f.Poll(limit)
	if err != nil {
		if _, wrong := errors.AsType[*shard.WrongShardError](err); !wrong || !f.moved { // it may have ended before the split
			require.ErrorIs(p.t, err, shard.ErrCompacted)
			require.Less(p.t, max(f.through+1, f.o.From), p.view.Compacted, "nothing it needs was compacted")
		}
		_, again := f.Poll(limit)
		require.Equal(p.t, err, again, "an end is final")
		p.forget(f)
		return
	}
	require.GreaterOrEqual(p.t, got.Through, f.through)
	require.LessOrEqual(p.t, got.Through, p.view.Floor)
	want := p.between(f.o.Span, max(f.through, f.o.From-1), got.Through, f.o.PrevKV)
	require.Len(p.t, got.Events, len(want))
	for i, e := range got.Events {
		require.True(p.t, proto.Equal(want[i], e), "%v instead of %v", e, want[i])
	}
	if n := len(got.Events); n > limit {
		require.Equal(p.t, got.Events[limit-1].Kv.ModRevision, got.Events[n-1].Kv.ModRevision, "more than the limit, and not of one revision")
	}
	f.through = got.Through
	f.awaited = slices.DeleteFunc(f.awaited, func(rev shard.Revision) bool { return rev <= f.through })
}

// checkReady checks W6: whoever could be given something has been called.
func (p *player) checkReady() {
	for _, f := range p.feeds {
		f.due = f.ready() || f.due
		if f.moved {
			require.True(p.t, f.due, "%s from %d: nobody said that the keys were given away", f.o.Span, f.o.From)
			continue
		}
		pending := len(p.between(f.o.Span, max(f.through, f.o.From-1), p.view.Floor, false)) > 0
		if pending || slices.ContainsFunc(f.awaited, func(rev shard.Revision) bool { return rev <= p.view.Floor }) {
			if !f.due {
				h := p.hub
				p.t.Logf("pos %d through %d armed %v end %v recent from %d floor %d own %s until %d; want %v span %s", f.pos, f.Subscription.through, f.armed, f.end, h.mu.recent.from, h.mu.recent.floor, h.mu.recent.own, h.mu.recent.ownUntil, p.between(f.o.Span, max(f.through, f.o.From-1), p.view.Floor, false), p.view.Descriptor.Span)
				for _, r := range h.mu.recent.records {
					p.t.Log(r.rev, string(r.plain.Kv.Key))
				}
			}
			require.True(p.t, f.due, "%s from %d: at %d of %d nobody called ready", f.o.Span, f.o.From, f.through, p.view.Floor)
		}
	}
}
