package watch

import (
	"math"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// History lists changes as mvcc.Events does, from the store. It fails with shard.CompactedError
// when some of them may be gone, with shard.ErrUnavailable when it cannot know (W5), and is called
// without the hub's lock.
type History func(span shard.Span, from, to shard.Revision, o mvcc.EventsOptions) ([]*mvccpb.Event, shard.Revision, error)

// Hub connects one replica's changes to their watches. Collect and Publish are called by the
// replica's apply worker, everything else by any goroutine.
type Hub struct {
	// KeepMoved is a knob: feeds of keys that are given away continue (against W8), so that tests
	// can show that the checkers detect it. It is set before the hub is used.
	KeepMoved bool
	// HeedEarly is another: promises take effect before the changes they follow are published
	// (against W11).
	HeedEarly bool

	id      shard.ID // immutable, like all up to mu
	history History
	metrics *Metrics

	mu struct {
		sync.Mutex
		recent recent
		// view is that of the last Publish.
		view shard.View
		// end is why there is nothing to watch any more; nil until then.
		end error

		// index has all subscriptions, of which subs is the number.
		index index
		subs  int
		// woken are those to be called when the lock is free again; its memory is used again.
		woken []*Subscription
		// prevs counts those that want previous values.
		prevs int
		// awaiting has the floors that subscriptions await; none of them is below lowest.
		awaiting map[*Subscription]floors
		lowest   shard.Revision
	}
}

// New returns the hub of a replica whose applied state is view. Without metrics nothing is counted.
func New(id shard.ID, view shard.View, history History, metrics *Metrics) *Hub {
	if metrics == nil {
		metrics = NewMetrics(prometheus.NewRegistry())
	}
	h := &Hub{id: id, history: history, metrics: metrics}
	h.mu.recent = nothingUpTo(view.Floor)
	h.mu.view = view
	h.mu.awaiting = make(map[*Subscription]floors)
	h.mu.index = newIndex(h)
	return h
}

// Batch collects the changes of one update of the replica.
type Batch struct {
	// PrevKV requests the previous version of each change.
	PrevKV  bool
	records []record
}

// Add adds the next change, with its previous version if that is requested and exists. Watches
// share both: they must not be modified from now on.
func (b *Batch) Add(e *mvccpb.Event, prev *mvccpb.KeyValue) {
	b.records = append(b.records, newRecord(e, prev))
}

// Collect returns the batch for the next update's changes; nil when nobody watches, and then there
// is nothing to add.
func (h *Hub) Collect() *Batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.subs == 0 {
		return nil
	}
	return &Batch{PrevKV: h.mu.prevs > 0}
}

// Publish reports that an update has been committed, with its changes, and what the replica has
// applied now. b comes from a Collect before that update. It is nil when the changes were not
// collected, or came as a snapshot: watches then read them from the store (W4).
//
// It is called when the store shows the changes and reads are validated against view.
func (h *Hub) Publish(b *Batch, view shard.View) {
	h.call(h.publish(b, view))
}

// Heed records that no change up to floor follows the entry of the Raft log with the given index.
// It reports whether everything up to that entry has been published; if not, it does nothing.
func (h *Hub) Heed(floor shard.Revision, index uint64) bool {
	woken, ok := h.heed(floor, index)
	h.call(woken)
	return ok
}

func (h *Hub) heed(floor shard.Revision, index uint64) ([]*Subscription, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.view.Applied < index && !h.HeedEarly { // W11
		return nil, false
	}
	h.mu.recent.floor = max(h.mu.recent.floor, floor)
	h.wakeAwaiting()
	return h.takeWoken(), true
}

// takeWoken hands over whom to call. Until it is given back, another list is begun.
func (h *Hub) takeWoken() []*Subscription {
	woken := h.mu.woken
	h.mu.woken = nil
	return woken
}

// call has ready called without the lock: a holder may hold one of its own while it polls.
func (h *Hub) call(woken []*Subscription) {
	if len(woken) == 0 {
		return
	}
	for _, s := range woken {
		s.ready()
	}
	clear(woken)
	h.mu.Lock()
	h.mu.woken = woken[:0]
	h.mu.Unlock()
}

func (h *Hub) publish(b *Batch, view shard.View) []*Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	floor := max(view.Floor, h.mu.recent.floor) // W11
	was := h.mu.view.Descriptor
	moved := was != nil && (view.Descriptor == nil || view.Descriptor.Epoch != was.Epoch) && !h.KeepMoved
	if moved && view.Frozen == nil {
		h.dismiss(view)
	}
	if b == nil || h.mu.subs == 0 {
		for _, g := range h.mu.index.all() {
			g.answer = answer{}
			for _, s := range slices.Backward(g.members) { // disarm moves the last one
				h.disturb(s)
			}
		}
		h.mu.recent = nothingUpTo(floor)
	} else {
		h.match(b)
		h.mu.recent.add(b, floor)
		if was != nil && view.Descriptor != nil && !was.Span.ContainsSpan(view.Descriptor.Span) {
			h.mu.recent.grow(was.Span)
		}
		h.metrics.events.Add(float64(len(b.records)))
	}
	h.mu.view = view
	if moved && view.Frozen != nil {
		h.dismiss(view)
	}
	h.wakeAwaiting()
	return h.takeWoken()
}

// match disturbs the armed subscriptions that the changes concern.
func (h *Hub) match(b *Batch) {
	for i := range b.records {
		rec := &b.records[i]
		h.mu.index.each(rec.plain.Kv.Key, func(g *group) {
			g.answer = answer{}
			for _, s := range slices.Backward(g.members[:g.armed]) { // as above
				if s.pos < rec.rev {
					h.disturb(s)
				}
			}
		})
	}
}

// disturb takes an armed subscription out of the index, before the floor rises: up to
// the floor it has been given everything.
func (h *Hub) disturb(s *Subscription) {
	if s.armed {
		s.group.disarm(s)
		s.pos = max(s.pos, h.mu.recent.floor)
	}
	h.wake(s)
}

// wake has ready called, unless it was and nobody has polled since.
func (h *Hub) wake(s *Subscription) {
	if s.tell() {
		h.mu.woken = append(h.mu.woken, s)
	}
}

// dismiss ends the subscriptions to keys that are not the shard's any more. It comes
// before the floor rises: the new floor may have been reached after the keys were given
// away, and then it says nothing about them (W2). Where the shard was frozen it comes after:
// then the floor speaks of all of them, and who was idle for long has come far.
func (h *Hub) dismiss(view shard.View) {
	for _, g := range h.mu.index.all() {
		if view.Descriptor != nil && view.Descriptor.Span.ContainsSpan(g.span) {
			continue
		}
		for _, s := range slices.Backward(g.members) {
			h.finish(s, view.WrongShard(h.id))
			h.wake(s)
		}
	}
}

// wakeAwaiting wakes those who await the floor that there is now.
func (h *Hub) wakeAwaiting() {
	floor := h.mu.recent.floor
	if len(h.mu.awaiting) == 0 || floor < h.mu.lowest {
		return
	}
	h.mu.lowest = math.MaxInt64
	for s, await := range h.mu.awaiting {
		if floor >= await.first {
			s.reached = max(s.reached, min(floor, await.last))
			h.wake(s)
		}
		if floor >= await.last {
			delete(h.mu.awaiting, s)
		} else {
			h.mu.lowest = min(h.mu.lowest, await.first)
		}
	}
}

// End ends all present and future feeds: the replica closes.
func (h *Hub) End(err error) {
	h.mu.Lock()
	h.mu.end = err
	var woken []*Subscription
	for _, g := range h.mu.index.all() {
		for _, s := range slices.Backward(g.members) {
			h.finish(s, err)
			if s.tell() {
				woken = append(woken, s)
			}
		}
	}
	h.mu.Unlock()
	for _, s := range woken {
		s.ready()
	}
}

// finish ends a subscription with what its next Poll is to say. Only the first end
// counts.
func (h *Hub) finish(s *Subscription, err error) {
	if s.end != nil {
		return
	}
	floor := h.mu.recent.floor
	if s.armed {
		s.group.disarm(s)
		s.pos = max(s.pos, floor)
	}
	s.end = &end{err: err, last: min(s.pos, floor)}
	h.mu.index.leave(s)
	delete(h.mu.awaiting, s)
	if s.prevKV {
		h.mu.prevs--
	}
	if h.mu.subs--; h.mu.subs == 0 {
		h.mu.recent = nothingUpTo(h.mu.recent.floor)
	}
	h.metrics.subscriptions.Dec()
}
