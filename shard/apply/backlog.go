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

// backlog is what a machine has applied and published, and not stored: versions alone, and
// what of its state goes with them. To find the places of versions in the engine's skip list
// is most of what a put costs, and a batch costs something by itself; many neighbours at a time, or
// so many that the engine makes a table of them at once, cost a fraction.
//
// Whoever reads the engine by a published view has it stored first (A13), and while there
// are such readers nothing is kept. So it is for replicas that are not read: two of three, while
// clients write, and all when they only write.
//
// What a machine keeps is stored by itself, or by a gathering with what others keep
// (gather.go). It then leaves the writer, and the machine goes on with what it has.
type backlog struct {
	// Held over an Update and over storing, and while a gathering takes something out. Readers
	// wait for it only if some of what the view speaks of is not stored.
	sync.Mutex
	writer *mvcc.Writer
	taken  int64    // of the node's Backlog, for what writer has; 0: nothing is kept there
	left   *leaving // nil: nothing is on its way to the store
	lost   error    // why what was kept is gone

	// behind is set before what is not stored is published.
	behind atomic.Bool
	// read is set when the engine was read since the last Update.
	read atomic.Bool
}

// leaving is what a gathering has taken out of a machine, and has not stored yet.
type leaving struct {
	machine *Machine
	sealed  *mvcc.Sealed
	view    shard.View // with it
	taken   int64      // of the node's Backlog
}

// updateBytes is what an update takes of the node's room besides its versions.
const updateBytes = 256

// keeps reports whether what the writer has stays in memory after an update, and takes the
// room for it.
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

// Store brings to the engine what was applied and is in memory only.
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
	if err := m.commit(b, m.View()); err != nil {
		return fmt.Errorf("store what shard %s replica %d has applied: %w", m.id, m.replica, err)
	}
	k.writer.Finish()
	return nil
}

// stateBytes is room for a state record in a batch.
const stateBytes = 1 << 10

// commit makes what the writer has and the view's state one batch with what b has, and commits
// it, after what was taken out before (A14). Nothing is behind then. The lock is held.
func (m *Machine) commit(b *pebble.Batch, view shard.View) error {
	if err := m.settle(); err != nil {
		return err
	}
	if err := m.setState(b, view); err != nil {
		return err
	}
	if err := m.backlog.writer.Store(b); err != nil {
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

// settle waits until what was taken out is stored. The lock is held, or nobody else has the
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

// giveBack returns the room of what the writer has, which is stored or given up.
func (m *Machine) giveBack() {
	if k := &m.backlog; k.taken > 0 {
		m.options.Backlog.drop(m, k.taken)
		k.taken = 0
	}
}

// lose gives up what is kept, after a failure: memory and store may disagree. The lock is held.
func (m *Machine) lose(err error) {
	m.backlog.lost = err
	m.backlog.writer.Discard()
	m.giveBack()
}

// renew begins anew with what is in the store. Nothing from before comes there any more (A15).
func (m *Machine) renew() {
	k := &m.backlog
	k.Lock()
	defer k.Unlock()
	_ = m.settle()
	m.lose(nil)
	k.behind.Store(false)
	m.headers.Purge()
}

// stored is the engine for whoever reads by a published view: what the view speaks of is
// there when a read begins.
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
