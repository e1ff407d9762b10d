package apply

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// backlog is what a machine has applied and published but not stored: versions only, with the state that belongs
// to them. Finding the positions of versions in the engine's skip list is most of a put's cost, and each batch has
// a cost of its own; inserting many neighbours at a time, or so many that the engine makes a table of them directly,
// costs a fraction.
//
// A reader of the engine by a published view has the backlog stored first (A13), and while there are such readers
// nothing is kept. So it benefits replicas that are not read: two of three, while clients write, and all when they
// only write.
//
// The machine stores its backlog by itself, or a gathering stores it with those of others (gather.go). The versions
// then leave the writer, and the machine continues at once.
type backlog struct {
	// Held during an Update and while storing, and while a gathering takes versions out. Readers
	// wait for it only if part of what the view describes is not stored.
	sync.Mutex
	writer *mvcc.Writer
	taken  int64    // of the node's Backlog, for what writer has; 0: nothing is kept there
	left   *leaving // nil: nothing is on its way to the store
	lost   error    // why what was kept is gone

	// behind is set before a view is published whose data is not all stored.
	behind atomic.Bool
	// read is set when the engine was read since the last Update.
	read atomic.Bool
}

// leaving is what a gathering has taken out of a machine and not stored yet.
type leaving struct {
	machine *Machine
	sealed  *mvcc.Sealed
	view    shard.View // with it
	taken   int64      // of the node's Backlog
}

// updateBytes is the room that an update takes besides its versions.
const updateBytes = 256

// keeps reports whether the writer's versions stay in memory after an update, and takes the room
// for them.
func (m *Machine) keeps() bool {
	k := &m.backlog
	if read := k.read.Swap(false); read && k.left == nil || k.writer.ReadSpan() {
		return false
	}
	more := max(int64(k.writer.Size())-k.taken, 0) + updateBytes
	if !m.options.Backlog.take(m, more) {
		return false
	}
	k.taken += more
	k.behind.Store(true) // before Outdate, and before the view: A13
	return true
}

// Store stores what was applied and is only in memory.
func (m *Machine) Store() error {
	k := &m.backlog
	if !k.behind.Load() {
		return nil
	}
	k.Lock()
	defer k.Unlock()
	if l := k.left; l != nil { // meanwhile Updates go on
		k.Unlock()
		_ = l.sealed.Wait() // settle has the error
		k.Lock()
	}
	return m.storeBacklog()
}

// storeBacklog is Store with the lock held.
func (m *Machine) storeBacklog() (err error) {
	k := &m.backlog
	if err := m.settle(); err != nil {
		return fmt.Errorf("read shard %s after a failure: %w", m.id, err)
	}
	if k.taken == 0 {
		return nil
	}
	b := m.engine.NewBatchOf(k.writer.BatchBytes() + stateBytes)
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := m.commit(b, m.View(), nil); err != nil {
		return fmt.Errorf("store what shard %s replica %d has applied: %w", m.id, m.replica, err)
	}
	k.writer.Finish()
	return nil
}

// stateBytes is room for a state record in a batch.
const stateBytes = 1 << 10

// commit adds the writer's versions and the view's state to b and commits it, after anything that
// was taken out before (A14). Nothing is behind then. The data of given goes in the same step. The lock is held.
func (m *Machine) commit(b *pebble.Batch, view shard.View, given abandonment) error {
	if err := m.settle(); err != nil {
		return err
	}
	if err := m.setState(b, view); err != nil {
		return err
	}
	if err := m.backlog.writer.Store(b); err != nil {
		return err
	}
	if err := m.abandon(b, given); err != nil { // what the batch itself has put there goes too
		return err
	}
	if err := m.engine.Commit(b); err != nil {
		return err
	}
	m.giveBack()
	m.backlog.behind.Store(false)
	return nil
}

func (m *Machine) setState(b *pebble.Batch, view shard.View) error {
	state, err := MarshalState(view)
	if err != nil {
		return err
	}
	if err := b.Set(engine.LocalKey(m.id, m.replica, StateKind), state, nil); err != nil {
		return fmt.Errorf("write state record: %w", err)
	}
	return nil
}

// settle waits until what was taken out is stored. The lock is held, or nobody else uses the
// machine.
func (m *Machine) settle() error {
	k := &m.backlog
	if k.left != nil {
		if err := k.left.sealed.Wait(); err != nil {
			k.lost = err
		} else if k.lost == nil {
			k.writer.Settle()
		}
		m.options.Backlog.giveBack(k.left.taken)
		k.left = nil
	}
	if k.lost == nil {
		k.behind.Store(k.taken > 0)
	}
	return k.lost
}

// giveBack returns the room of the writer's versions, which are stored or abandoned.
func (m *Machine) giveBack() {
	if k := &m.backlog; k.taken > 0 {
		m.options.Backlog.drop(m, k.taken)
		k.taken = 0
	}
}

// lose abandons the backlog after a failure: memory and store may disagree. The lock is held.
func (m *Machine) lose(err error) {
	m.backlog.lost = err
	m.backlog.writer.Discard()
	m.giveBack()
}

// renew starts over with the contents of the store. Nothing from before will be stored any more
// (A15).
func (m *Machine) renew() {
	k := &m.backlog
	k.Lock()
	defer k.Unlock()
	_ = m.settle()
	m.lose(nil)
	k.behind.Store(false)
	m.headers.Purge()
}

// stored is the engine for readers by a published view: everything that the view describes is
// stored when a read begins.
func (m *Machine) stored() engine.Reader { return storedReader{m} }

type storedReader struct{ m *Machine }

func (r storedReader) begin() (engine.Reader, error) {
	if read := &r.m.backlog.read; !read.Load() {
		read.Store(true)
	}
	return r.m.engine.NewReader(), r.m.Store()
}

// Get implements engine.Reader.
func (r storedReader) Get(key []byte) ([]byte, io.Closer, error) {
	e, err := r.begin()
	if err != nil {
		return nil, nil, err
	}
	return e.Get(key)
}

// NewIter implements engine.Reader.
func (r storedReader) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	e, err := r.begin()
	if err != nil {
		return nil, err
	}
	return e.NewIter(o)
}
