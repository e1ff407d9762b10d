package apply

import (
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// Received is what a snapshot with that state replaces, and its records.
func (m *Machine) Received(state []byte) (shard.Span, []engine.KV, error) {
	s, records, err := m.received(state)
	return s.replaces, records, err
}

// Without is what is left of spans after taking out another.
func Without(spans []shard.Span, other shard.Span) []shard.Span { return without(spans, other) }

// Gathering is one on its way.
type Gathering struct{ leaving []*leaving }

// TakeOut does the first half of gathering.
func (b *Backlog) TakeOut() Gathering { return Gathering{b.takeOut()} }

// Machines is of how many machines something is on its way.
func (g Gathering) Machines() int { return len(g.leaving) }

// Store does the second half.
func (g Gathering) Store() { storeLeaving(g.leaving) }

// Fail does what Store does when the store fails.
func (g Gathering) Fail(err error) {
	for _, l := range g.leaving {
		l.sealed.End(err)
		l.settle()
	}
}

// Gather gathers though what is kept may be little, unless that is under way.
func (b *Backlog) Gather() {
	if b.tryTurn() {
		b.start(b.gather)
	}
}

// EndTurn ends a gathering that was begun and never runs.
func (b *Backlog) EndTurn() { <-b.turn }

// Taken is how much of the room is taken, and how much of that is not on its way to the store.
func (b *Backlog) Taken() (taken, kept int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.taken, b.mu.kept
}

// Gatherings has a node keep more and more, a little at a time, and returns how much it had whenever
// that was gathered.
func Gatherings(room, little int64, n int) (kept []int64) {
	var b *Backlog
	b = NewBacklog(room, func(func()) {
		b.mu.Lock()
		defer b.mu.Unlock()
		kept = append(kept, b.mu.kept)
		b.mu.taken, b.mu.kept = 0, 0
		<-b.turn
	})
	for len(kept) < n {
		b.take(nil, little)
		b.tend()
	}
	return kept
}
