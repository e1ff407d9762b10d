package apply

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/flotilla-kv/flotilla/shard/engine"
)

// Backlog bounds what all machines of a node together have applied and not stored, and has it stored once there is
// enough: the versions of all machines become one batch, so that a few versions of each of many shards cost no more
// than many versions of one.
//
// A gathering holds no lock except, briefly, that of the machine it takes versions from: while the store works all
// machines continue (A16).
type Backlog struct {
	room  int64 // immutable, like start
	start func(gather func())
	// turn holds one element while something that was taken out is on its way.
	turn chan struct{}
	// decoders are those that no update uses.
	decoders sync.Pool

	mu struct {
		sync.Mutex
		taken int64 // of room
		// keeping are the machines that keep versions which are not on their way to the store, and
		// kept is their total size.
		keeping map[*Machine]struct{}
		kept    int64
		much    int64 // of kept, that is gathered
		holds   int   // who want nothing to be gathered now
	}
}

const (
	// gatherBytes is the size from which on kept versions are stored: Pebble writes a batch of more
	// than half a memtable to a table directly, without inserting it into the memtable. Sizes are
	// estimates, and a machine may store its own versions meanwhile.
	gatherBytes = 9 << 20
	// gatherSpread is the maximum random addition: nodes with replicas of the same shards apply the
	// same, and would otherwise gather, and then flush, at the same moment.
	gatherSpread = gatherBytes / 4
)

// NewBacklog returns a Backlog of the given size for a node. start runs a function concurrently.
func NewBacklog(bytes int64, start func(gather func())) *Backlog {
	b := &Backlog{room: bytes, start: start, turn: make(chan struct{}, 1)}
	b.mu.keeping = make(map[*Machine]struct{})
	b.mu.much = gatherBytes/2 + rand.Int64N(gatherBytes/2) // as if it had begun some time ago
	return b
}

// take reserves room for a machine's versions, if there is any. The machine's lock is held.
func (b *Backlog) take(m *Machine, bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.taken+bytes > b.room {
		return false
	}
	b.mu.taken += bytes
	b.mu.kept += bytes
	b.mu.keeping[m] = struct{}{}
	return true
}

// drop returns the room of versions that a machine no longer keeps. Its lock is held.
func (b *Backlog) drop(m *Machine, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.taken -= bytes
	b.mu.kept -= bytes
	delete(b.mu.keeping, m)
}

// leaves records that a machine's versions are on their way to the store. Its lock is held.
func (b *Backlog) leaves(m *Machine, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.kept -= bytes
	delete(b.mu.keeping, m)
}

// Bytes is the room in use.
func (b *Backlog) Bytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.taken
}

// giveBack returns the room of versions that have arrived in the store.
func (b *Backlog) giveBack(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.taken -= bytes
}

// tend starts a gathering if enough is kept. No machine's lock is held.
func (b *Backlog) tend() {
	b.mu.Lock()
	begin := b.mu.holds == 0 && b.mu.kept > min(b.mu.much, b.room/2) && b.tryTurn()
	if begin {
		b.mu.much = gatherBytes + rand.Int64N(gatherSpread)
	}
	b.mu.Unlock()
	if begin {
		b.start(b.gather)
	}
}

// Hold has nothing gathered until release is called, which must be soon: a sync that is waited for would write that
// out too. Where room ends meanwhile, machines store by themselves.
func (b *Backlog) Hold() (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.holds++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.mu.holds--
	}
}

func (b *Backlog) tryTurn() bool {
	select {
	case b.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// gather stores what all machines keep: even those that have kept little for long occupy room. It
// ends the turn.
func (b *Backlog) gather() {
	storeLeaving(b.takeOut())
	<-b.turn
}

// StoreAside is Store, but Updates go on meanwhile, and what they add may not be stored.
func (m *Machine) StoreAside() error {
	turn := m.options.Backlog.turn
	turn <- struct{}{}
	defer func() { <-turn }()
	l := m.takeOut()
	if l == nil {
		return nil
	}
	storeLeaving([]*leaving{l})
	return l.sealed.Wait()
}

// HoldGathering is Hold for the node of the machine.
func (m *Machine) HoldGathering() (release func()) { return m.options.Backlog.Hold() }

// takeOut takes the kept versions out of all machines, in key order.
func (b *Backlog) takeOut() (all []*leaving) {
	b.mu.Lock()
	keeping := make([]*Machine, 0, len(b.mu.keeping))
	for m := range b.mu.keeping {
		keeping = append(keeping, m)
	}
	b.mu.Unlock()
	for _, m := range keeping {
		if l := m.takeOut(); l != nil {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b *leaving) int {
		return cmp.Or(bytes.Compare(a.start(), b.start()), cmp.Compare(a.machine.id, b.machine.id))
	})
	return all
}

// start is the start of the shard's span.
func (l *leaving) start() []byte {
	if d := l.view.Descriptor; d != nil {
		return d.Span.Start
	}
	return nil
}

// takeOut takes the machine's kept versions out; nil if there are none.
func (m *Machine) takeOut() *leaving {
	k := &m.backlog
	k.Lock()
	defer k.Unlock()
	if k.taken == 0 { // it has stored it itself
		return nil
	}
	k.left = &leaving{machine: m, sealed: k.writer.Seal(), view: m.View(), taken: k.taken}
	k.taken = 0
	m.options.Backlog.leaves(m, k.left.taken)
	return k.left
}

// storeLeaving stores what was taken out of machines, in one batch.
func storeLeaving(all []*leaving) {
	if len(all) == 0 {
		return
	}
	err := commitLeaving(all[0].machine.engine, all)
	for _, l := range all {
		l.sealed.End(err)
	}
	for _, l := range all {
		l.settle()
	}
}

// commitLeaving commits what was taken out, each machine's with its state (A14).
func commitLeaving(e *engine.Engine, all []*leaving) (err error) {
	size := 0
	for _, l := range all {
		size += l.sealed.BatchBytes() + stateBytes
	}
	b := e.NewBatchOf(size)
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, l := range all {
		if err := l.sealed.Store(b); err != nil {
			return fmt.Errorf("store what shard %s replica %d has applied: %w", l.machine.id, l.machine.replica, err)
		}
	}
	for _, l := range all { // their keys come after all those
		if err := l.machine.setState(b, l.view); err != nil {
			return fmt.Errorf("store what shard %s replica %d has applied: %w", l.machine.id, l.machine.replica, err)
		}
	}
	if err := e.Commit(b); err != nil {
		return fmt.Errorf("store what %d replicas have applied: %w", len(all), err)
	}
	return nil
}

// settle makes the machine forget what was taken out of it, if it has not done so.
func (l *leaving) settle() {
	k := &l.machine.backlog
	k.Lock()
	defer k.Unlock()
	if k.left == l {
		_ = l.machine.settle() // who has need of what is lost is told
	}
}
