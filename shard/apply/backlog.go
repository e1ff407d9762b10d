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

// Backlog bounds what all machines of a node together have applied and not stored.
type Backlog struct {
	left atomic.Int64
	from int
}

// BacklogFrom is how many versions an update should have that is not stored at once. What few
// come to is not worth being kept, and what a shard has kept that becomes idle takes others'
// room.
const BacklogFrom = 64

// backlogMax is where one machine's is stored: a batch of more than half a memtable is made a
// table by Pebble without being put into the memtable first.
const backlogMax = 16<<20 + 64<<10

// NewBacklog allows a node so many bytes, for updates of so many versions at least.
func NewBacklog(bytes int64, from int) *Backlog {
	b := &Backlog{from: from}
	b.left.Store(bytes)
	return b
}

// backlog is what a machine has applied and published, and not stored: versions alone, of
// updates that have many. To find the places of versions in the engine's skip list is most of what a put
// costs; for a hundred times as many neighbours at a time it costs a fraction.
//
// Whoever reads the engine by a published view stores the backlog first (A12), and while there
// are such readers nothing is kept. So it is for replicas that are not read: two of three, while
// clients write, and all when they only write.
type backlog struct {
	// Held over an Update and over storing. Readers wait for it only if some of what the view
	// speaks of is not stored.
	sync.Mutex
	writer *mvcc.Writer // nil: all is stored
	taken  int64        // of the node's Backlog
	lost   error        // why what was kept is gone

	// behind is set before what is not stored is published.
	behind atomic.Bool
	// read is set when the engine was read since the last Update.
	read atomic.Bool
}

// keeps reports whether what w has stays in memory after an update, and takes the room for it.
func (m *Machine) keeps(w *mvcc.Writer) bool {
	k := &m.backlog
	if k.read.Swap(false) || w.ReadSpan() || w.Written() < m.options.Backlog.from || w.Size() > backlogMax {
		return false
	}
	more := int64(w.Size()) - k.taken
	if m.options.Backlog.left.Add(-more) < 0 {
		m.options.Backlog.left.Add(more)
		return false
	}
	k.taken += more
	return true
}

// keep leaves the writes of an update to be stored later.
func (k *backlog) keep(w *mvcc.Writer) {
	k.writer = w
	k.behind.Store(true) // before Outdate, and before the view: A12
}

// Store brings to the engine what was applied and is in memory only.
func (m *Machine) Store() error {
	if !m.backlog.behind.Load() {
		return nil
	}
	m.backlog.Lock()
	defer m.backlog.Unlock()
	return m.storeBacklog()
}

// storeBacklog is Store with the lock held.
func (m *Machine) storeBacklog() (err error) {
	k := &m.backlog
	if !k.behind.Load() {
		return nil
	}
	if k.lost != nil {
		return fmt.Errorf("read shard %s after a failure: %w", m.id, k.lost)
	}
	b := m.engine.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	w := k.writer
	if err := m.commit(b, w, m.View()); err != nil {
		return fmt.Errorf("store what shard %s replica %d has applied: %w", m.id, m.replica, err)
	}
	w.Finish()
	return nil
}

// commit makes w's writes and the view's state one batch with what b has, and commits it.
// Nothing is behind then. The lock is held.
func (m *Machine) commit(b *pebble.Batch, w *mvcc.Writer, view shard.View) error {
	state, err := MarshalState(view)
	if err != nil {
		return err
	}
	if err := b.Set(engine.LocalKey(m.id, m.replica, StateKind), state, nil); err != nil {
		return fmt.Errorf("write state record: %w", err)
	}
	if err := w.Store(b); err != nil {
		return err
	}
	if err := m.engine.Commit(b); err != nil {
		return err
	}
	m.emptyBacklog()
	return nil
}

// emptyBacklog forgets what was kept and gives its room back. The lock is held.
func (m *Machine) emptyBacklog() {
	k := &m.backlog
	k.writer, k.lost = nil, nil
	k.behind.Store(false)
	m.options.Backlog.left.Add(k.taken)
	k.taken = 0
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
