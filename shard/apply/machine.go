package apply

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// Options of a Machine.
type Options struct {
	// Headers bounds the latest headers (revisions, version, lease) that are kept in memory so that
	// a put need not read the store, for all machines of a node together. Default: 8192 for this
	// machine alone.
	Headers *mvcc.HeaderBudget
	// Rows caches the latest versions of keys that were read, for all machines of a node together.
	// Default: 1024 for this machine alone.
	Rows *mvcc.Rows
	// Trails helps watches that are far behind, for all machines of a node together. Default: 1 MiB
	// for this machine alone.
	Trails *mvcc.Trails
	// Backlog bounds the applied versions that are kept in memory, for all machines of a node
	// together. Default: nothing is kept.
	Backlog *Backlog
	// Watches are the metrics of watches, for all machines of a node together.
	Watches *watch.Metrics
	// Node is the machine's node: a SPLIT leaves a seed for the child's replica there.
	Node shard.NodeID
	// Gone reports whether a replica was removed from the node, or is being removed. Default: none
	// is.
	Gone func(shard.ID, shard.ReplicaID) (bool, error)
	// Checksum, if set, is called after the log entry that requests a checksum, and before any
	// later one: the machine's state then is the one after that entry. It is called by the apply
	// worker.
	Checksum func(index uint64)
	// Knobs are for tests.
	Knobs Knobs
}

const (
	cachedHeadersDefault = 8192
	rowsDefault          = 1024
	trailsBytesDefault   = 1 << 20
)

// Machine is one replica's state machine. Update, Install and Reload are called by one goroutine at
// a time (the replica's apply worker); everything else by any.
type Machine struct {
	engine  *engine.Engine // immutable, like all up to view
	id      shard.ID
	replica shard.ReplicaID
	options Options
	rows    *mvcc.RowReader

	// view is the last committed view; never nil. Only the apply worker stores it.
	view atomic.Pointer[shard.View]
	// leases is the last committed lease state; never nil. Reload replaces it.
	leases atomic.Pointer[lease.Table]
	// installing is set while the span's data may be newer than view, and after the machine was
	// closed, because then the data may be removed.
	installing atomic.Bool
	// hub is passed every view after it was stored. Open creates it.
	hub *watch.Hub

	// headers, leaseChanges and broken belong to the apply worker.
	headers *mvcc.HeaderCache
	// leaseChanges are the records that the last Update changed.
	leaseChanges []lease.RecordChange
	// broken is the failure after which memory and store may disagree.
	broken error

	backlog backlog
	garbage garbage
	// collected duplicates garbage's figure, so that it can be read without waiting for a step.
	collected atomic.Int64
}

// Open loads the replica's state from the engine. A replica without one has applied nothing and
// waits for INIT or a snapshot.
func Open(e *engine.Engine, id shard.ID, replica shard.ReplicaID, o Options) (*Machine, error) {
	if o.Headers == nil {
		o.Headers = mvcc.NewHeaderBudget(0, cachedHeadersDefault, 0)
	}
	if o.Rows == nil {
		o.Rows = mvcc.NewRows(rowsDefault)
	}
	if o.Trails == nil {
		o.Trails = mvcc.NewTrails(trailsBytesDefault)
	}
	if o.Backlog == nil {
		o.Backlog = NewBacklog(0, nil)
	}
	if o.Gone == nil {
		o.Gone = func(shard.ID, shard.ReplicaID) (bool, error) { return false, nil }
	}
	m := &Machine{
		engine: e, id: id, replica: replica, options: o,
		rows: mvcc.NewRowReader(o.Rows), headers: mvcc.NewHeaderCache(o.Headers),
	}
	m.backlog.writer = mvcc.NewWriter(e.NewReader(), m.headers)
	if err := m.Reload(); err != nil {
		return nil, err
	}
	if forget := o.Knobs.ForgetApplied; forget > 0 {
		view := m.View()
		view.Applied -= min(view.Applied, forget)
		m.view.Store(&view)
	}
	m.hub = watch.New(id, m.View(), m.history, o.Watches)
	m.hub.KeepMoved, m.hub.HeedEarly = o.Knobs.KeepFeeds, o.Knobs.HeedEarly
	return m, nil
}

// View is what the replica has applied and readers can see.
func (m *Machine) View() shard.View { return *m.view.Load() }

// Leases is the applied lease state.
func (m *Machine) Leases() *lease.Table { return m.leases.Load() }

// LeaseChanges lists the leases whose home is here and that the last Update changed. It is for the
// apply worker.
func (m *Machine) LeaseChanges() []lease.RecordChange { return m.leaseChanges }

// EndFeeds ends present and future watches with the error.
func (m *Machine) EndFeeds(err error) { m.hub.End(err) }

// Close ends watches and abandons the machine's backlog. It is the apply worker's last call.
func (m *Machine) Close() {
	m.hub.End(fmt.Errorf("watch shard %s: %w", m.id, shard.ErrStopped))
	_ = m.Store() // what is not stored is in the log
	m.renew()
	m.garbage.Lock() // whoever comes next may replace the data
	defer m.garbage.Unlock()
	m.garbage.closed = true
	m.installing.Store(true) // for ever: see settled
}

// Reload adopts the state in the engine. Use Install if the machine may be read, or garbage
// collected, at the same time.
func (m *Machine) Reload() error {
	m.renew()
	data, err := m.engine.Local(m.id, m.replica, StateKind)
	if err != nil {
		return fmt.Errorf("load state of shard %s replica %d: %w", m.id, m.replica, err)
	}
	var view shard.View
	if data != nil {
		if view, err = UnmarshalState(data); err != nil {
			return fmt.Errorf("load state of shard %s replica %d: %w", m.id, m.replica, err)
		}
	}
	if err := m.loadCollection(); err != nil {
		return fmt.Errorf("load state of shard %s replica %d: %w", m.id, m.replica, err)
	}
	leases, err := m.loadLeases(view.Descriptor)
	if err != nil {
		return fmt.Errorf("load leases of shard %s replica %d: %w", m.id, m.replica, err)
	}
	m.broken = nil
	m.leaseChanges = nil
	m.leases.Store(leases)
	m.rows.Forget()
	m.view.Store(&view)
	return nil
}

// Install replaces the span's data and the state record by what replace writes, a received
// snapshot, and adopts it. Concurrent reads are refused with shard.ErrUnavailable: between the
// replacement and the new View they could take history that the snapshot no longer has for an empty
// past. replace must change everything or, when it fails, nothing. Watches continue from their
// positions in the new history.
func (m *Machine) Install(replace func() error) error {
	if err := m.install(replace); err != nil {
		return err
	}
	m.hub.Publish(nil, m.View()) // when history can be read again
	return nil
}

func (m *Machine) install(replace func() error) error {
	m.garbage.Lock()
	defer m.garbage.Unlock()
	m.installing.Store(true)
	defer m.installing.Store(false)                      // after Reload: see settled
	if err := m.Store(); err != nil && m.broken == nil { // or it would come after what replaces it
		return err
	}
	err := replace()
	if owned, ok := errors.AsType[*ownedError](err); ok {
		err = m.poison(owned)
	}
	if err != nil {
		return fmt.Errorf("install snapshot of shard %s replica %d: %w", m.id, m.replica, err)
	}
	return m.Reload()
}
