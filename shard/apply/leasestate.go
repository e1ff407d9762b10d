package apply

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Kinds of local records about leases. The records of leases whose home is here are not local
// records: they are in the span, by home key (engine.LeaseKey).
const (
	// registrationKind is a shardpb.LeaseRegistration; one per lease, by ID.
	registrationKind byte = 3
	// leaseBookKind is the shardpb.LeaseBook.
	leaseBookKind byte = 4
	// leaseWillKind is the shardpb.LeaseWill, from LEASE_BEQUEATH to the next reign.
	leaseWillKind byte = 7
)

// storeLeases adds an Update's changes to its batch (A3).
func (m *Machine) storeLeases(b *pebble.Batch, c lease.Changes) error {
	if len(c.Records)+len(c.Registrations) == 0 && c.Book == nil && c.Will == nil {
		return nil
	}
	kvs, err := leaseRecords(m.id, m.replica, c)
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		if kv.Value == nil {
			err = b.Delete(kv.Key, nil)
		} else {
			err = b.Set(kv.Key, kv.Value, nil)
		}
		if err != nil {
			return fmt.Errorf("write lease records: %w", err)
		}
	}
	return nil
}

// leaseRecords encodes changes as the store keeps them.
func leaseRecords(id shard.ID, replica shard.ReplicaID, c lease.Changes) ([]engine.KV, error) {
	var kvs []engine.KV
	var errs []error
	set := func(key []byte, m interface{ MarshalVT() ([]byte, error) }) {
		value, err := m.MarshalVT()
		errs = append(errs, err)
		kvs = append(kvs, engine.KV{Key: key, Value: value})
	}
	for _, r := range c.Records {
		if key := engine.LeaseKey(r.ID); r.Record == nil {
			kvs = append(kvs, engine.KV{Key: key})
		} else {
			set(key, r.Record.Proto())
		}
	}
	for _, g := range c.Registrations {
		if key := registrationKey(id, replica, g.Lease); g.Incarnation == 0 {
			kvs = append(kvs, engine.KV{Key: key})
		} else {
			set(key, g)
		}
	}
	if c.Book != nil {
		set(engine.LocalKey(id, replica, leaseBookKind), c.Book)
	}
	if key := engine.LocalKey(id, replica, leaseWillKind); c.Will != nil && c.Will.Reign == 0 {
		kvs = append(kvs, engine.KV{Key: key})
	} else if c.Will != nil {
		set(key, c.Will)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("encode lease records: %w", err)
	}
	return kvs, nil
}

func registrationKey(id shard.ID, replica shard.ReplicaID, lease int64) []byte {
	return engine.LocalKey(id, replica, registrationKind, binary.BigEndian.AppendUint64(nil, uint64(lease))...)
}

// loadLeases loads the replica's lease state from the engine.
func (m *Machine) loadLeases(d *shard.Descriptor) (*lease.Table, error) {
	if d == nil {
		return lease.NewTable(nil)
	}
	s, err := m.leaseState(m.id, m.replica, d.Span)
	if err != nil {
		return nil, err
	}
	return lease.NewTable(s)
}

// leaseState loads the lease state of a replica with the span from the engine.
func (m *Machine) leaseState(id shard.ID, replica shard.ReplicaID, span shard.Span) (*shardpb.LeaseState, error) {
	s := &shardpb.LeaseState{}
	var err error
	if s.Records, err = m.leaseRecordsIn(span); err != nil {
		return nil, err
	}
	registrations, err := m.engine.LocalsOf(id, replica, registrationKind)
	if err != nil {
		return nil, err
	}
	for _, r := range registrations {
		var g shardpb.LeaseRegistration
		if err := g.UnmarshalVT(r.Value); err != nil {
			return nil, fmt.Errorf("decode lease registration: %w: %w", shard.ErrCorrupt, err)
		}
		s.Registrations = append(s.Registrations, &g)
	}
	book, err := m.engine.Local(id, replica, leaseBookKind)
	if err != nil {
		return nil, err
	}
	if book != nil {
		s.Book = &shardpb.LeaseBook{}
		if err := s.Book.UnmarshalVT(book); err != nil {
			return nil, fmt.Errorf("decode lease book: %w: %w", shard.ErrCorrupt, err)
		}
	}
	will, err := m.engine.Local(id, replica, leaseWillKind)
	if err != nil {
		return nil, err
	}
	if will != nil {
		s.Will = &shardpb.LeaseWill{}
		if err := s.Will.UnmarshalVT(will); err != nil {
			return nil, fmt.Errorf("decode lease will: %w: %w", shard.ErrCorrupt, err)
		}
	}
	return s, nil
}

// leaseRecordsIn reads the leases whose home keys are in the span.
func (m *Machine) leaseRecordsIn(span shard.Span) (out []*shardpb.LeaseRecord, err error) {
	lower, upper := engine.LeaseSpanBounds(span)
	it, err := m.engine.NewReader().NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for valid := it.First(); valid; valid = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		var r shardpb.LeaseRecord
		if err := r.UnmarshalVT(value); err != nil {
			return nil, fmt.Errorf("decode lease record %x: %w: %w", it.Key(), shard.ErrCorrupt, err)
		}
		out = append(out, &r)
	}
	return out, it.Error()
}

// received converts a snapshot's state into what it replaces and the records that its receiver stores. The
// receiver's own registrations that the snapshot does not contain are removed.
func (m *Machine) received(state []byte) (received, []engine.KV, error) {
	fail := func(err error) (received, []engine.KV, error) {
		return received{}, nil, fmt.Errorf("state of a snapshot for shard %s: %w", m.id, err)
	}
	view, leases, err := unmarshalState(state)
	if err != nil {
		return fail(err)
	}
	if view.Descriptor == nil {
		return fail(fmt.Errorf("without a descriptor: %w", shard.ErrCorrupt))
	}
	if _, err := lease.NewTable(leases); err != nil {
		return fail(err)
	}
	span, err := m.replaces(view.Descriptor.Span)
	if err != nil {
		return fail(err)
	}
	s := received{replaces: span, applied: view.Applied}
	if err := m.mayReceive(s); err != nil { // before much is received in vain
		return fail(err)
	}
	changes := lease.Changes{Registrations: leases.GetRegistrations(), Book: leases.GetBook(), Will: leases.GetWill()}
	for _, p := range leases.GetRecords() {
		r, err := lease.RecordOf(p)
		if err != nil {
			return fail(err)
		}
		changes.Records = append(changes.Records, lease.RecordChange{ID: r.ID, Record: r})
	}
	sent, err := leaseRecords(m.id, m.replica, changes)
	if err != nil {
		return fail(err)
	}
	own, err := MarshalState(view)
	if err != nil {
		return fail(err)
	}
	before, err := m.engine.LocalsOf(m.id, m.replica, registrationKind)
	if err != nil {
		return fail(err)
	}
	// One value per key: received records override removals. What was collected here says nothing
	// about the received history.
	values := map[string][]byte{
		string(engine.LocalKey(m.id, m.replica, leaseBookKind)):  nil,
		string(engine.LocalKey(m.id, m.replica, leaseWillKind)):  nil,
		string(engine.LocalKey(m.id, m.replica, CollectionKind)): nil,
		string(engine.LocalKey(m.id, m.replica, SeedKind)):       nil,
	}
	for _, r := range before {
		values[string(engine.LocalKey(m.id, m.replica, registrationKind, r.Suffix...))] = nil
	}
	for _, kv := range sent {
		values[string(kv.Key)] = kv.Value
	}
	values[string(engine.LocalKey(m.id, m.replica, StateKind))] = own
	kvs := make([]engine.KV, 0, len(values))
	for key, value := range values {
		kvs = append(kvs, engine.KV{Key: []byte(key), Value: value})
	}
	return s, kvs, nil
}
