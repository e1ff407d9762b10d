package apply

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// freeze ends the shard's service, so that its left neighbour can take its keys: from here
// on nothing of them changes. What the neighbour needs to know is in the state. The floor
// rises to the stamp: whoever watches goes on from there at the neighbour, and must not ask
// for what was compacted while the shard was idle. A later merge takes over from an earlier
// one that was given up; an earlier one that comes late does nothing.
func (r *run) freeze(cmd *shardpb.Command) error {
	into, err := descriptorOf(cmd, cmd.Descriptor_)
	if err != nil {
		return err
	}
	mine := r.view.Descriptor
	if f := r.view.Frozen; f != nil {
		switch {
		case cmd.OperatorId < f.Operator:
			return absent(r.id, r.view)
		case cmd.OperatorId == f.Operator: // the neighbour may have taken it, as it is
			return nil
		}
		mine = f.Descriptor
	}
	stamp := shard.Tick(cmd.Stamp)
	switch {
	case mine == nil:
		return absent(r.id, r.view)
	case cmd.Epoch != mine.Epoch: // A7
		return wrongShard(r.id, r.view)
	case into.ID == r.id || cmd.OperatorId == 0 || into.Epoch <= mine.Epoch:
		return malformed("FREEZE of shard %s at epoch %d into shard %s at epoch %d by operator %d", r.id, mine.Epoch, into.ID, into.Epoch, cmd.OperatorId)
	case !bytes.Equal(into.Span.End, mine.Span.End), bytes.Compare(into.Span.Start, mine.Span.Start) >= 0:
		return malformed("FREEZE of %s into %s", mine.Span, into.Span)
	case stamp < 0 || stamp > revisionMax.Tick():
		return malformed("FREEZE with stamp %d", cmd.Stamp)
	}
	if err := r.reown(); err != nil {
		return err
	}
	r.view.Floor, r.view.Reserved = max(r.reserved(), stamp.Revision()), nil
	r.view.Frozen = &shard.Frozen{Descriptor: mine, Into: into, Operator: cmd.OperatorId}
	if !r.knobs.NoFreeze {
		r.view.Descriptor = nil
	}
	r.reshape = freezing{}
	return nil
}

// freezing is a FREEZE that was carried out.
type freezing struct{}

func (freezing) store(*Machine, *pebble.Batch) error { return nil }

func (freezing) adopt(m *Machine) { m.headers.Purge() }

// thaw lets the shard serve again after its merge was given up. Its leases get a new reign:
// nobody could renew them.
func (r *run) thaw(cmd *shardpb.Command) error {
	f := r.view.Frozen
	switch {
	case f == nil && r.view.Descriptor == nil:
		return absent(r.id, r.view)
	case f == nil || f.Operator != cmd.OperatorId:
		return nil // it was done, or another merge is under way
	}
	if err := r.reown(); err != nil {
		return err
	}
	table, err := r.node.loadLeases(f.Descriptor)
	if err != nil {
		return err
	}
	r.view.Descriptor, r.view.Frozen = f.Descriptor, nil
	r.leases = table.Update()
	r.leases.SkipReign()
	r.reshape = thawing{table}
	return nil
}

// thawing is a THAW that was carried out.
type thawing struct{ table *lease.Table }

func (thawing) store(*Machine, *pebble.Batch) error { return nil }

func (t thawing) adopt(m *Machine) { m.leases.Store(t.table) }

// left is what a frozen neighbour has left.
type left struct {
	view   shard.View
	leases *shardpb.LeaseState
}

// subsume takes the keys of the right neighbour. Every replica of it was frozen before, and
// durably, so each replica of this shard finds on its node what the others find. One that
// does not is no member from before the merge and has a log that goes back too far: it must
// not serve. The epoch makes SUBSUME idempotent.
func (r *run) subsume(cmd *shardpb.Command) error {
	merged, err := r.descriptor(cmd)
	if err != nil {
		return err
	}
	right, err := descriptorOf(cmd, cmd.Right)
	if err != nil {
		return err
	}
	mine := r.view.Descriptor
	switch {
	case len(mine.Span.End) == 0, !bytes.Equal(mine.Span.End, right.Span.Start), right.ID == r.id:
		return malformed("SUBSUME of %s of shard %s into %s of shard %s", right.Span, right.ID, mine.Span, r.id)
	case !merged.Span.Equal(shard.Span{Start: mine.Span.Start, End: right.Span.End}):
		return malformed("SUBSUME of %s and %s into %s", mine.Span, right.Span, merged.Span)
	case merged.Epoch <= max(mine.Epoch, right.Epoch) || merged.Slot != mine.Slot || merged.Generation <= mine.Generation:
		return malformed("SUBSUME of epochs %d and %d into %d", mine.Epoch, right.Epoch, merged.Epoch)
	}
	if err := r.reown(); err != nil {
		return err
	}
	l, err := r.node.loadFrozen(right, cmd.OperatorId)
	if err != nil {
		return err
	}
	if l == nil {
		r.view = shard.View{Applied: r.view.Applied, Poisoned: true}
		r.reshape = poisoning{mine.Span}
		return absent(r.id, r.view)
	}
	if r.knobs.LoseNeighbour {
		l = &left{}
	}
	if err := r.leases.Absorb(l.leases); err != nil {
		return err
	}
	r.view.Rev = max(r.view.Rev, l.view.Rev)
	r.view.Floor = max(r.view.Floor, l.view.Floor)
	r.view.Compacted = max(r.view.Compacted, l.view.Compacted)
	r.view.Descriptor, r.view.Child, r.view.Since = merged, nil, r.index
	r.reshape = subsuming{}
	return nil
}

// poisoning is the end of a replica that has had keys. What it had is of no use to anybody, and once the replica is
// poisoned nobody knows what that was.
type poisoning struct{ had shard.Span }

func (poisoning) store(*Machine, *pebble.Batch) error { return nil }

func (poisoning) adopt(m *Machine) { m.headers.Purge() }

func (p poisoning) abandoned() abandonment { return abandonment{p.had} }

// loadFrozen implements neighbours. A neighbour that is being removed from the node may have lost its data already.
func (m *Machine) loadFrozen(right *shard.Descriptor, operator uint64) (*left, error) {
	own, here := right.ReplicaOn(m.options.Node)
	if !here {
		return nil, nil
	}
	if gone, err := m.options.Gone(right.ID, own.ID); gone || err != nil {
		return nil, err
	}
	data, err := m.engine.Local(right.ID, own.ID, StateKind)
	if data == nil || err != nil {
		return nil, err
	}
	view, err := UnmarshalState(data)
	if err != nil {
		return nil, fmt.Errorf("shard %s replica %d: %w", right.ID, own.ID, err)
	}
	f := view.Frozen
	if f == nil || f.Operator != operator || !f.For(m.options.Node, m.id, m.replica) || !f.Descriptor.Span.Equal(right.Span) {
		return nil, nil
	}
	leases, err := m.leaseState(right.ID, own.ID, right.Span)
	if err != nil {
		return nil, fmt.Errorf("shard %s replica %d: %w", right.ID, own.ID, err)
	}
	m.headers.Widen() // before the rest of the entry looks its keys up
	return &left{view, leases}, nil
}

// subsuming is a SUBSUME that was carried out.
type subsuming struct{}

// store has the walk over garbage begin anew, from nothing: what was collected on either
// side was not collected on the other.
func (subsuming) store(m *Machine, b *pebble.Batch) error {
	return setCollection(b, m.id, m.replica, &shardpb.Collection{Format: collectionFormat})
}

func (subsuming) adopt(m *Machine) { m.adoptCollection(&shardpb.Collection{}) }
