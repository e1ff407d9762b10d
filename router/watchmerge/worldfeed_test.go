package watchmerge

import (
	"context"
	"slices"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// Subscribe implements router.Subscriber.
func (w *world) Subscribe(_ context.Context, node shard.NodeID, sub router.Subscription, ready func()) (router.Feed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	if w.refuse != nil {
		return nil, w.refuse
	}
	if sub.Shard == w.lost {
		return nil, shard.ErrUnavailable
	}
	s, err := w.at(node, sub.Shard, sub.Epoch)
	if err != nil {
		return nil, err
	}
	if sub.From < w.compacted {
		return nil, &shard.CompactedError{Compacted: w.compacted}
	}
	require.True(w.t, s.desc.Span.ContainsSpan(sub.Span), "asked for %v of shard %v", sub.Span, s.desc.Span)
	f := &modelFeed{world: w, node: node, sub: sub, next: sub.From, ready: ready}
	w.feeds[f] = true
	return f, nil
}

// modelFeed is a subscription at one replica. It says ready only when the contract asks
// for it: a watch that waits for more would hang.
type modelFeed struct {
	world   *world
	node    shard.NodeID
	sub     router.Subscription
	ready   func()
	next    shard.Revision
	said    shard.Revision // what ready has been said of
	awaited shard.Revision
	broken  error
	over    bool // its end has been said
	polled  int
	seen    shard.Revision // how far the replica had come when it was last looked at
	told    shard.Revision // what Poll has returned of that
}

// state ends a feed when the shard gives its keys away. As long as it does not, a feed goes on
// through splits and merges, though its holder knows the shard by an older epoch.
func (f *modelFeed) state() (applied shard.Revision, err error) {
	if f.broken != nil {
		return 0, f.broken
	}
	s, err := f.world.replica(f.node, f.sub.Shard)
	if err == nil && !s.desc.Span.ContainsSpan(f.sub.Span) {
		err = &shard.WrongShardError{Shard: f.sub.Shard, Descriptors: []*shard.Descriptor{s.desc}}
	}
	if err != nil {
		f.broken = err // for good, whatever comes back
		return 0, err
	}
	f.seen = s.applied[f.node]
	return f.seen, nil
}

// pending lists what Poll would give; mu is held.
func (f *modelFeed) pending(applied shard.Revision) []*mvccpb.Event {
	var events []*mvccpb.Event
	for _, e := range f.world.log {
		if f.sub.Span.Contains(e.Kv.Key) && revision(e) >= f.next && revision(e) <= applied {
			events = append(events, e)
		}
	}
	slices.SortStableFunc(events, func(a, b *mvccpb.Event) int { return int(revision(a) - revision(b)) })
	return events
}

func (f *modelFeed) announce() {
	applied, err := f.state()
	if err != nil {
		if !f.over {
			f.over = true
			f.ready()
		}
		return
	}
	events := f.pending(applied)
	if len(events) == 0 { // it has been given everything: what is compacted by now is not missed
		f.next = maxRevision(f.next, applied+1)
	} else if revision(events[len(events)-1]) > f.said {
		f.said = revision(events[len(events)-1])
		f.ready()
	}
	if f.awaited > 0 && applied >= f.awaited {
		f.awaited = 0
		f.ready()
	}
}

// Poll implements router.Feed.
func (f *modelFeed) Poll(max int) (shard.Changes, error) {
	w := f.world
	w.mu.Lock()
	defer w.mu.Unlock()
	f.polled++
	applied, err := f.state()
	if err != nil {
		if f.seen > f.told && len(f.pending(f.seen)) == 0 { // before the end
			f.told = f.seen
			f.ready()
			return shard.Changes{Through: f.told}, nil
		}
		delete(w.feeds, f)
		return shard.Changes{}, err
	}
	events := f.pending(applied)
	if len(events) > 0 && f.next < w.compacted {
		delete(w.feeds, f)
		return shard.Changes{}, &shard.CompactedError{Compacted: w.compacted}
	}
	if len(events) > max {
		n := max
		for ; n < len(events) && revision(events[n]) == revision(events[n-1]); n++ {
		}
		events = slices.Clone(events[:n])
		applied = revision(events[n-1])
		f.ready() // for the rest
	}
	f.next, f.told = maxRevision(f.next, applied+1), applied
	return shard.Changes{Events: events, Through: applied}, nil
}

func maxRevision(a, b shard.Revision) shard.Revision { return max(a, b) }

// Await implements router.Feed.
func (f *modelFeed) Await(rev shard.Revision) {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	f.awaited = rev
	f.announce()
}

// Close implements router.Feed.
func (f *modelFeed) Close() {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	delete(f.world.feeds, f)
}
