package watch

import (
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// Options say what to watch.
type Options struct {
	// Epoch is that of the descriptor by which the shard was found (W8).
	Epoch uint64
	// Span lies in the shard's span.
	Span shard.Span
	// From is the first revision wanted. It may lie in the future.
	From shard.Revision
	// PrevKV adds the replaced version to each change.
	PrevKV bool
	// Ready is called when there is something to Poll (W6). It must not block and must not call the
	// subscription. Subscribe, Poll and Await may call it before they return, so it must not take a
	// lock that is held then.
	Ready func()
}

// Subscription is a feed of the changes of a span. Poll is called by one goroutine at a
// time.
type Subscription struct {
	group *group // immutable, as ready and prevKV; the rest is guarded by the hub's mu
	ready func()

	// pos: everything from the first revision wanted up to pos has been given. While armed
	// that is true up to the hub's floor.
	pos shard.Revision
	// through is what Poll has told last; at first, the revision before the first wanted.
	through shard.Revision
	// reached is the highest awaited floor that was reached, and so ready called for it.
	reached shard.Revision

	slot   int32 // in its group
	prevKV bool
	armed  bool
	told   bool // ready was called and Poll was not since
	live   bool // it has been armed, after it began or after it fell behind
	end    *end // nil while it is under way
}

// end is what Poll says for ever, once it has told last.
type end struct {
	err  error
	last shard.Revision
}

// floors are the lowest and the highest of those that a subscription awaits.
type floors struct{ first, last shard.Revision }

// Subscribe opens a feed. It is refused with WrongShardError (W8), or with the error passed to End.
func (h *Hub) Subscribe(o Options) (*Subscription, error) {
	begin := max(0, o.From-1)
	s := &Subscription{ready: o.Ready, prevKV: o.PrevKV, pos: begin, through: begin}
	h.mu.Lock()
	if err := h.admit(&o); err != nil {
		h.mu.Unlock()
		return nil, err
	}
	h.mu.index.join(o.Span, s)
	h.mu.subs++
	if o.PrevKV {
		h.mu.prevs++
	}
	h.metrics.subscriptions.Inc()
	if o.From < h.mu.view.Compacted {
		h.finish(s, &shard.CompactedError{Compacted: h.mu.view.Compacted})
	}
	told := h.settle(s)
	h.mu.Unlock()
	if told {
		o.Ready()
	}
	return s, nil
}

func (h *Hub) admit(o *Options) error {
	d := h.mu.view.Descriptor
	switch {
	case h.mu.end != nil:
		return h.mu.end
	case d == nil:
		return h.mu.view.Absent(h.id)
	case d.Epoch != o.Epoch || !d.Span.ContainsSpan(o.Span):
		return h.mu.view.WrongShard(h.id)
	}
	return nil
}

// settle arms a subscription for which nothing is left, as memory shows, and otherwise
// reports whether ready has to be called. The lock is held.
func (h *Hub) settle(s *Subscription) (told bool) {
	switch r := &h.mu.recent; {
	case s.armed:
		return false
	case s.end == nil && r.covers(s.group.span, s.pos, s.prevKV) && !r.touches(s.group.span, s.pos):
		s.arm()
		return false
	default:
		return s.tell()
	}
}

func (s *Subscription) arm() {
	s.group.arm(s)
	s.live = true
}

// tell notes that ready is called; not again before a Poll.
func (s *Subscription) tell() bool {
	first := !s.told
	s.told = true
	return first
}

// Poll returns what is available: at most limit changes plus the rest of the last one's revision.
// If there is more, ready is called. It may read the store. An error is final:
// shard.CompactedError, WrongShardError, ErrUnavailable, or the one passed to End.
func (s *Subscription) Poll(limit int) (shard.Changes, error) {
	limit = max(1, limit)
	if out, ok := s.same(limit); ok {
		return out, nil
	}
	pos, past, err := s.begin()
	if err != nil {
		return shard.Changes{}, err
	}
	out, err := s.take(pos, &past, limit)
	if err != nil {
		s.fail(err)
		return s.Poll(limit) // tells how far it had come, or the end
	}
	if s.given(pos, out) {
		s.ready()
	}
	return out, nil
}

// same returns what another of the group was given that was where this one is, if that is
// all there is. Then there is no more to do than to arm it.
func (s *Subscription) same(limit int) (shard.Changes, bool) {
	h := s.group.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	events, ok := s.group.answer.to(s)
	if !ok || len(events) > limit {
		return shard.Changes{}, false
	}
	s.told = false
	floor := h.mu.recent.floor
	s.pos, s.through = floor, max(s.through, floor)
	s.arm()
	return shard.Changes{Events: events, Through: floor}, true
}

// begin returns where the subscription is, and the past as it is in memory. Of one that
// has ended that is where it was: a feed that was idle for long has come far without being
// asked, and whoever follows it has to begin there, or might ask for compacted history.
func (s *Subscription) begin() (shard.Revision, recent, error) {
	h := s.group.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.told = false
	if s.end != nil {
		if last := s.end.last; last > s.through {
			return last, nothingUpTo(last), nil
		}
		return 0, recent{}, s.end.err
	}
	past := h.mu.recent
	if s.armed {
		s.pos = max(s.pos, past.floor)
	} else if s.live && !past.covers(s.group.span, s.pos, s.prevKV) {
		s.live = false
		h.metrics.fellBehind.Inc()
	}
	return s.pos, past, nil
}

// take gathers what is next, without the lock.
func (s *Subscription) take(pos shard.Revision, past *recent, limit int) (out shard.Changes, err error) {
	switch {
	case pos >= past.floor:
		out.Through = past.floor
	case past.covers(s.group.span, pos, s.prevKV):
		out.Events, out.Through = past.list(s.group.span, pos, s.prevKV, limit)
	default:
		h := s.group.hub
		h.metrics.historyReads.Inc()
		o := mvcc.EventsOptions{Limit: limit, PrevKV: s.prevKV}
		out.Events, out.Through, err = h.history(s.group.span, pos, past.floor, o)
	}
	return out, err
}

// given notes how far Poll has come from pos, and reports whether ready has to be called.
func (s *Subscription) given(pos shard.Revision, out shard.Changes) (told bool) {
	h := s.group.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.pos, s.through = max(s.pos, out.Through), max(s.through, out.Through)
	told = h.settle(s)
	if s.armed {
		s.group.keep(answer{pos: pos, prevKV: s.prevKV, events: out.Events})
	}
	if s.through < s.reached { // the store's list ended before it
		told = s.tell() || told
	}
	return told
}

// fail ends the subscription, as its history cannot be read.
func (s *Subscription) fail(err error) {
	h := s.group.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finish(s, fmt.Errorf("watch shard %s from revision %s on: %w", h.id, s.pos+1, err))
}

// Await asks that ready be called once Poll can return a Through of rev or above. Several revisions
// may be awaited; ready is called for each, and perhaps in between.
func (s *Subscription) Await(rev shard.Revision) {
	if s.awaits(rev) {
		s.ready()
	}
}

// awaits reports whether ready has to be called at once.
func (s *Subscription) awaits(rev shard.Revision) (told bool) {
	h := s.group.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.end != nil || h.mu.recent.floor >= rev {
		s.reached = max(s.reached, rev)
		return s.tell()
	}
	if len(h.mu.awaiting) == 0 {
		h.mu.lowest = rev
	}
	await, more := h.mu.awaiting[s]
	if !more {
		await = floors{rev, rev}
	}
	h.mu.awaiting[s] = floors{min(await.first, rev), max(await.last, rev)}
	h.mu.lowest = min(h.mu.lowest, rev)
	return false
}

// Close ends the feed. A call of ready in progress may still finish.
func (s *Subscription) Close() {
	h := s.group.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finish(s, fmt.Errorf("watch of shard %s was closed: %w", h.id, shard.ErrUnavailable))
}
