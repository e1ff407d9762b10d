package apply

import (
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// ownedError keeps a snapshot out of keys that another replica of the node has: one of
// the parent, say, that has not applied the SPLIT yet, and would go on to write there.
type ownedError struct {
	span    shard.Span
	owner   shard.ID
	applied uint64 // of the snapshot
}

func (e *ownedError) Error() string {
	return fmt.Sprintf("keys of %s still belong to the replica of shard %s on this node", e.span, e.owner)
}

// replaces is what goes when a snapshot of the span comes: a replica that was away during
// a SPLIT holds keys that are not its shard's any more.
func (m *Machine) replaces(span shard.Span) shard.Span {
	if d := m.View().Descriptor; d != nil && d.Span.ContainsSpan(span) {
		return d.Span
	}
	return span
}

// ownerOf is another shard with a replica on this node that has keys of the span, or a
// seed for them; 0 for none. What the engine holds counts: a replica need not run to have
// keys. Those of a neighbour that was frozen to be taken by this replica are nobody else's.
func (m *Machine) ownerOf(span shard.Span) (shard.ID, error) {
	locals, err := m.engine.Locals()
	if err != nil {
		return 0, err
	}
	for _, l := range locals {
		if l.Kind != StateKind && l.Kind != SeedKind || l.Shard == m.id {
			continue
		}
		view, err := UnmarshalState(l.Value)
		if err != nil {
			return 0, fmt.Errorf("shard %s replica %d: %w", l.Shard, l.Replica, err)
		}
		if f := view.Frozen; f != nil && !f.For(m.options.Node, m.id, m.replica) && f.Descriptor.Span.Overlaps(span) {
			return l.Shard, nil
		}
		if view.Descriptor != nil && view.Descriptor.Span.Overlaps(span) {
			return l.Shard, nil
		}
	}
	return 0, nil
}

// poison ends the replica's part in its group for good: of what it was sent it can take
// nothing in, and the log does not bring it again.
func (m *Machine) poison(e *ownedError) error {
	state, err := MarshalState(shard.View{Applied: e.applied, Poisoned: true})
	if err != nil {
		return err
	}
	b := m.engine.NewBatch()
	defer b.Close()
	if err := b.Set(engine.LocalKey(m.id, m.replica, StateKind), state, nil); err != nil {
		return fmt.Errorf("write state record: %w", err)
	}
	if err := m.engine.Commit(b); err != nil {
		return err
	}
	return m.engine.Sync() // as what a snapshot brings is durable
}
