package apply

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Entry is one entry of the Raft log and, after Update, its outcome.
type Entry struct {
	Index uint64
	Data  []byte // a shardpb.Batch; not kept
	// Want requests results. Update sets it for a batch that its wanted function claims. Responses
	// are built only then: of three replicas that apply a command, two have nobody to tell.
	Want bool
	// Sequence is the batch's, when it was claimed.
	Sequence uint64
	// Results has one result per command of the batch, in order; a single one for bytes that are no
	// batch. It is nil unless Want is set, and for an entry that had been applied before.
	Results []shard.Result
}

// Update applies entries in order and publishes the new View; only then are the results valid. All entries go
// into one engine batch (A3), except that an entry that changes which keys the shard has ends the batch, so
// that later entries see the state that it made, and that an entry that requests a checksum ends it, so that there is a
// moment for which the checksum holds. wanted, which may be nil, is called for every batch that can be decoded and
// reports whether this process waits for its results; it must not keep the batch. Entries up to the applied
// index are skipped.
//
// After an error the machine refuses everything until it is reopened or reloaded.
func (m *Machine) Update(entries []Entry, wanted func(b *shardpb.Batch) bool) error {
	if m.broken != nil {
		return fmt.Errorf("apply to shard %s after a failure: %w", m.id, m.broken)
	}
	m.leaseChanges = nil
	for len(entries) > 0 {
		n, err := m.update(entries, wanted)
		if err != nil {
			m.broken = err
			return fmt.Errorf("apply to shard %s replica %d: %w", m.id, m.replica, err)
		}
		entries = entries[n:]
	}
	m.options.Backlog.tend()
	return nil
}

// update applies as many entries as go into one batch, and returns how many.
func (m *Machine) update(entries []Entry, wanted func(b *shardpb.Batch) bool) (n int, err error) {
	k := &m.backlog
	k.Lock()
	defer k.Unlock()
	if k.lost != nil {
		return 0, k.lost
	}
	b := m.engine.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	defer func() {
		if err != nil {
			m.lose(err)
		}
	}()
	before := m.View()
	r := &run{
		id: m.id, knobs: m.options.Knobs, view: before, w: k.writer,
		leases: m.Leases().Update(), attached: attached{r: m.engine.NewReader(), b: b}, node: m, decoder: m.options.Backlog.decoder(),
	}
	defer m.options.Backlog.release(r.decoder)
	defer r.endReowning()
	r.events.batch = m.hub.Collect()

	if n, err = r.applyAll(entries, wanted); err != nil {
		return 0, err
	}
	if r.view.Applied == before.Applied {
		return n, nil
	}
	if r.reshape != nil {
		// The collector must not continue in keys that are no longer the replica's (A8).
		m.garbage.Lock()
		defer m.garbage.Unlock()
	}
	changes := r.leases.Changes()
	if err := m.store(b, r, before, changes); err != nil {
		return 0, err
	}
	r.endReowning()
	m.publish(r, changes)
	return n, nil
}

// store stores what the run has written, or keeps it to be stored later if it consists of versions
// only.
func (m *Machine) store(b *pebble.Batch, r *run, before shard.View, changes lease.Changes) (err error) {
	if r.reshape != nil {
		if err := r.reshape.store(m, b); err != nil {
			return err
		}
	}
	if err := m.storeLeases(b, changes); err != nil {
		return err
	}
	if r.wroteVersionsAlone(before) && m.keeps() {
		m.rows.Outdate(r.w)
		r.w.Pause()
		return nil
	}
	if size := r.w.BatchBytes(); size > roomyBytes {
		// Much that was kept goes with it: a batch that grows takes several times as much for a while.
		roomy := m.engine.NewBatchOf(b.Len() + size + stateBytes)
		defer func() { err = errors.Join(err, roomy.Close()) }()
		if err := roomy.Apply(b, nil); err != nil {
			return fmt.Errorf("move to a larger batch: %w", err)
		}
		b = roomy
	}
	given := r.abandoned()
	if given != nil {
		m.installing.Store(true) // until publish: readers must not take what is gone for what never was
	}
	if err := m.commit(b, r.view, given); err != nil {
		if given != nil {
			m.installing.Store(false)
		}
		return err
	}
	m.rows.Outdate(r.w)
	r.w.Finish()
	return nil
}

// roomyBytes is from where on a batch is made as large as it will be.
const roomyBytes = 1 << 20

// publish makes the run's effects visible. It comes after store: see A6.
func (m *Machine) publish(r *run, changes lease.Changes) {
	r.leases.Commit()
	m.leaseChanges = append(m.leaseChanges, changes.Records...)
	for _, id := range changes.Left {
		m.leaseChanges = append(m.leaseChanges, lease.RecordChange{ID: id})
	}
	if r.reshape != nil {
		r.reshape.adopt(m)
	}
	view := r.view
	m.view.Store(&view)
	if r.abandoned() != nil {
		m.installing.Store(false)
	}
	m.hub.Publish(r.events.batch, view)
	if r.checksum && m.options.Checksum != nil {
		m.options.Checksum(view.Applied)
	}
}

// wroteVersionsAlone reports whether the update has changed nothing but keys, revisions and the
// applied index.
func (r *run) wroteVersionsAlone(before shard.View) bool {
	before.Applied, before.Rev, before.Floor, before.Reserved = r.view.Applied, r.view.Rev, r.view.Floor, r.view.Reserved
	return r.attached.b.Empty() && r.reshape == nil && !r.checksum && r.view == before
}

// run is one Update in progress: its writes are in w and its effects on the replica's state in
// view; neither is visible to anyone yet.
type run struct {
	id    shard.ID
	knobs Knobs
	view  shard.View
	index uint64 // of the entry
	w     *mvcc.Writer
	// events is what watches will be told.
	events events
	// leases and attached hold the changes of leases and of attached keys.
	leases   lease.Update
	attached attached
	node     neighbours
	// reshape is the last command's effect on which keys the replica has; nil if none.
	reshape reshape
	// reowning is set while the run changes who has which keys: see reown.
	reowning bool
	// decoder holds the entry being executed.
	decoder *decoder
	// asked is the put being executed, reused for all puts.
	asked pb.PutRequest
	// checksum ends the run after the entry that asks for one.
	checksum bool
}

// neighbours is what a command must know of other replicas on the node.
type neighbours interface {
	// loadSeed reads the seed that the parent has left for this replica; nil for none.
	loadSeed() (*taken, error)
	// loadFrozen reads the state of the right neighbour, frozen by the operator for this replica;
	// nil for none.
	loadFrozen(right *shard.Descriptor, operator uint64) (*left, error)
	// loadLeases reads the replica's lease state for the descriptor.
	loadLeases(d *shard.Descriptor) (*lease.Table, error)
	// ownerOf finds another owner of keys of a span; 0 for none.
	ownerOf(span shard.Span) (shard.ID, error)
	// lockOwners has nobody else of the node change who has which keys until unlockOwners.
	lockOwners() error
	unlockOwners()
}

// reown comes before a command's first look at what other replicas of the node have, or may have: from there until
// the run is stored nobody else changes it (A17).
func (r *run) reown() error {
	if r.reowning {
		return nil
	}
	if err := r.node.lockOwners(); err != nil {
		return err
	}
	r.reowning = true
	return nil
}

func (r *run) endReowning() {
	if r.reowning {
		r.reowning = false
		r.node.unlockOwners()
	}
}

// lockOwners implements neighbours. What was taken out is waited for before: the gathering that stores it may itself
// wait for a machine that waits for the owners. The backlog's lock is held, so nothing is taken out afterwards.
func (m *Machine) lockOwners() error {
	if err := m.settle(); err != nil {
		return err
	}
	m.engine.Owners.Lock()
	return nil
}

func (m *Machine) unlockOwners() { m.engine.Owners.Unlock() }

// reshape is a change of the replica's keys in progress. The collector is locked out.
type reshape interface {
	// store adds its records to the batch.
	store(m *Machine, b *pebble.Batch) error
	// adopt applies it in memory, after the commit.
	adopt(m *Machine)
}

// abandoner is a reshape that may leave keys to nobody on the node.
type abandoner interface {
	// abandoned returns them. It is called after store.
	abandoned() abandonment
}

// abandoned returns the keys that nobody on the node has after the run; nil for none.
func (r *run) abandoned() abandonment {
	if a, ok := r.reshape.(abandoner); ok {
		return a.abandoned()
	}
	return nil
}

// applyAll ends after an entry that changes which keys the replica has, or that requests a
// checksum. It returns how many entries were applied.
func (r *run) applyAll(entries []Entry, wanted func(b *shardpb.Batch) bool) (int, error) {
	for i := range entries {
		if r.reshape != nil {
			return i, nil
		}
		e := &entries[i]
		e.Results = nil
		if e.Index <= r.view.Applied {
			continue
		}
		r.index = e.Index
		if err := r.apply(e, wanted); err != nil {
			return 0, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		r.view.Applied = e.Index
		if r.checksum {
			return i + 1, nil
		}
	}
	return len(entries), nil
}

func (r *run) apply(e *Entry, wanted func(b *shardpb.Batch) bool) error {
	batch, err := r.decoder.decode(e.Data)
	if err != nil {
		if e.Want {
			e.Results = []shard.Result{{Revision: r.view.Rev, Err: fmt.Errorf("%w: entry is no batch: %w", ErrMalformed, err)}}
		}
		return nil
	}
	if wanted != nil && wanted(batch) {
		e.Want, e.Sequence = true, batch.Sequence
	}
	if e.Want {
		e.Results = make([]shard.Result, 0, len(batch.Commands))
	}
	r.admitReserved(batch)
	for i, cmd := range batch.Commands {
		if i%mvcc.ApproachMax == 0 {
			r.approach(batch.Commands[i:])
		}
		res, err := r.command(batch, cmd, e.Want)
		if err != nil {
			return fmt.Errorf("command %d: %w", i, err)
		}
		if err := r.events.add(r.w); err != nil {
			return fmt.Errorf("events of command %d: %w", i, err)
		}
		if e.Want {
			e.Results = append(e.Results, res)
		}
	}
	return nil
}

// approach prepares the keys of the first of the commands, which come next.
func (r *run) approach(next []*shardpb.Command) {
	var keys [mvcc.ApproachMax][]byte
	n := 0
	for _, cmd := range next[:min(len(next), len(keys))] {
		if key, ok := keyOf(cmd); ok {
			keys[n] = key
			n++
		}
	}
	if n > 1 {
		r.w.Approach(keys[:n])
	}
}

// keyOf returns a key that the command will look up first, if that is soon said.
func keyOf(cmd *shardpb.Command) (key []byte, ok bool) {
	switch cmd.Kind {
	case shardpb.Kind_PUT:
		return etcdwire.PutKey(cmd.Body)
	case shardpb.Kind_TXN:
		return etcdwire.TxnKey(cmd.Body)
	default:
		return nil, false
	}
}
