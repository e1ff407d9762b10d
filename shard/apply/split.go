package apply

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// SeedKind is the kind of the engine's local record that holds a replica's seed: the state
// it begins with when its keys were split off from another shard. The parent's SPLIT
// writes it, and whatever gives the replica a state removes it.
const SeedKind byte = 6

// seed is what a SPLIT leaves for the child.
type seed struct {
	view   shard.View
	leases *shardpb.LeaseState // without records: those lie in the span
}

// split gives the keys from the child's start on away. The epoch makes it idempotent: a
// second one is routed by an old map. Of leases, records go with their home keys; what keys
// may be attached to goes to both, because the keys of both lie where the parent's did (L2).
func (r *run) split(cmd *shardpb.Command) error {
	left, err := r.descriptor(cmd)
	if err != nil {
		return err
	}
	child, err := descriptorOf(cmd, cmd.Child)
	if err != nil {
		return err
	}
	mine, key := r.view.Descriptor, child.Span.Start
	switch {
	case !mine.Span.Contains(key) || bytes.Equal(key, mine.Span.Start):
		return malformed("SPLIT of %s at %q", mine.Span, key)
	case !left.Span.Equal(shard.Span{Start: mine.Span.Start, End: key}), !bytes.Equal(child.Span.End, mine.Span.End):
		return malformed("SPLIT of %s into %s and %s", mine.Span, left.Span, child.Span)
	case left.Epoch != mine.Epoch+1 || child.Epoch != left.Epoch || left.Slot != mine.Slot || left.Generation <= mine.Generation:
		return malformed("SPLIT of epoch %d into %d and %d", mine.Epoch, left.Epoch, child.Epoch)
	case child.Parent != r.id || child.ID == r.id:
		return malformed("SPLIT of shard %s into shard %s, a part of shard %s", r.id, child.ID, child.Parent)
	}
	if err := r.reown(); err != nil {
		return err
	}
	r.reshape = &split{keeps: left.Span, seed: seed{
		view:   shard.View{Descriptor: child, Rev: r.view.Rev, Floor: r.reserved(), Compacted: r.view.Compacted},
		leases: r.leases.Shared(),
	}}
	r.leases.Keep(left.Span)
	r.view.Descriptor, r.view.Child, r.view.Since = left, child, r.index
	return nil
}

// begin is INIT where the parent has left a seed. Without one this replica has not got
// the data that the others begin with: it must never serve, nor wait for it, and stays
// poisoned until a snapshot or another replica takes its place.
func (r *run) begin() error {
	if err := r.reown(); err != nil {
		return err
	}
	s, err := r.node.loadSeed()
	if err != nil {
		return err
	}
	if s == nil {
		r.view.Poisoned = true
		return absent(r.id, r.view)
	}
	if r.knobs.NoSeed {
		if s, err = orphaned(s); err != nil {
			return err
		}
	}
	applied := r.view.Applied
	r.view = s.view
	r.view.Applied, r.view.Since = applied, r.index
	r.reshape = s
	r.leases = s.table.Update()
	return nil
}

// taken is a seed with the table of leases that goes with it.
type taken struct {
	seed
	table *lease.Table
}

// loadSeed returns nil when the parent has left nothing.
func (m *Machine) loadSeed() (*taken, error) {
	data, err := m.engine.Local(m.id, m.replica, SeedKind)
	if data == nil || err != nil {
		return nil, err
	}
	var t taken
	if t.view, t.leases, err = unmarshalState(data); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	if t.view.Descriptor == nil {
		return nil, fmt.Errorf("seed without a descriptor: %w", shard.ErrCorrupt)
	}
	records, err := m.leaseRecordsIn(t.view.Descriptor.Span)
	if err != nil {
		return nil, err
	}
	t.table, err = lease.NewTable(&shardpb.LeaseState{Records: records, Registrations: t.leases.GetRegistrations(), Book: t.leases.GetBook(), Will: t.leases.GetWill()})
	return &t, err
}

// store takes the seed away. The parent's SPLIT has written how far garbage is gone.
func (t *taken) store(m *Machine, b *pebble.Batch) error {
	if err := b.Delete(engine.LocalKey(m.id, m.replica, SeedKind), nil); err != nil {
		return fmt.Errorf("remove seed: %w", err)
	}
	if err := m.loadCollection(); err != nil {
		return err
	}
	if m.options.Knobs.LoseTombstones {
		if err := revive(m, b, t.view.Descriptor.Span); err != nil {
			return err
		}
	}
	return m.storeLeases(b, lease.Changes{Registrations: t.leases.GetRegistrations(), Book: t.leases.GetBook(), Will: t.leases.GetWill()})
}

func (t *taken) adopt(m *Machine) {
	m.leases.Store(t.table)
	m.headers.Inherit(m.id)
}

// split is a SPLIT that was carried out.
type split struct {
	keeps shard.Span
	seed  seed
	// seeded: the child has a replica on this node, for which a seed was left.
	seeded bool
}

// abandoned implements abandoner. Without an heir on the node the keys are nobody's here.
func (s *split) abandoned() abandonment {
	if s.seeded {
		return nil
	}
	return abandonment{s.seed.view.Descriptor.Span}
}

// store leaves the child its seed. What was collected here was collected there; the
// walks of both begin anew.
func (s *split) store(m *Machine, b *pebble.Batch) error {
	collected := &shardpb.Collection{Format: collectionFormat, Collected: m.garbage.record.Collected}
	if err := setCollection(b, m.id, m.replica, collected); err != nil {
		return err
	}
	child := s.seed.view.Descriptor
	own, here := child.ReplicaOn(m.options.Node)
	if !here {
		return nil
	}
	// It may be gone, where the parent comes late. Nobody would ever take the seed, which keeps others
	// out of the keys (ownerOf).
	if gone, err := m.options.Gone(child.ID, own.ID); gone || err != nil {
		return err
	}
	if err := setCollection(b, child.ID, own.ID, collected); err != nil {
		return err
	}
	data, err := marshalState(s.seed.view, s.seed.leases)
	if err != nil {
		return err
	}
	if err := b.Set(engine.LocalKey(child.ID, own.ID, SeedKind), data, nil); err != nil {
		return fmt.Errorf("write seed of shard %s: %w", child.ID, err)
	}
	s.seeded = true
	return nil
}

func (s *split) adopt(m *Machine) {
	m.adoptCollection(&shardpb.Collection{Collected: m.garbage.record.Collected})
	var heir shard.ID
	if s.seeded {
		heir = s.seed.view.Descriptor.ID
	}
	m.headers.Keep(s.keeps, heir)
}
