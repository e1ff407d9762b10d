package apply

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

// Who has which keys of the node is in the engine's records: the state of each replica, with its descriptor or the one
// that it was frozen with, and seeds. They are stored with the command that changes them, before anybody sees its
// effect, so a look at them is never behind. engine.Owners is held from the look to the commit (A17).

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

// Restore installs a snapshot that another replica sends.
func (m *Machine) Restore(src io.Reader, stop <-chan struct{}) error {
	return m.Install(func() error {
		var s received
		finish := func(state []byte) (span shard.Span, records []engine.KV, err error) {
			s, records, err = m.received(state)
			return s.replaces, records, err
		}
		// Receiving takes long, and others may have got the keys meanwhile.
		may := func() error { return m.mayReceive(s) }
		return mvcc.Restore(m.engine, src, stop, finish, may)
	})
}

// received says of a snapshot what it replaces here, and its applied index.
type received struct {
	replaces shard.Span
	applied  uint64
}

// mayReceive returns an ownedError if another replica has keys that a snapshot would replace.
func (m *Machine) mayReceive(s received) error {
	owner, err := m.ownerOf(s.replaces)
	if err == nil && owner != 0 {
		err = &ownedError{span: s.replaces, owner: owner, applied: s.applied}
	}
	return err
}

// replaces is what goes when a snapshot of the span comes: a replica that was away during
// a SPLIT holds keys that are not its shard's any more. It may be frozen, by a merge that was given up before
// the SPLIT, or have a seed only.
func (m *Machine) replaces(span shard.Span) (shard.Span, error) {
	has, err := claims(m.engine, m.id, m.replica)
	for _, s := range has {
		if s.ContainsSpan(span) {
			span = s
		}
	}
	return span, err
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
		if l.Shard == m.id {
			continue
		}
		view, err := claimOf(l)
		if err != nil {
			return 0, err
		}
		if f := view.Frozen; f != nil && f.For(m.options.Node, m.id, m.replica) {
			view.Frozen = nil
		}
		if has, any := claimed(view); any && has.Overlaps(span) {
			return l.Shard, nil
		}
	}
	return 0, nil
}

// claimOf decodes the state or seed in a record; no view of another record claims anything.
func claimOf(l engine.LocalRecord) (shard.View, error) {
	if l.Kind != StateKind && l.Kind != SeedKind {
		return shard.View{}, nil
	}
	view, err := UnmarshalState(l.Value)
	if err != nil {
		return shard.View{}, fmt.Errorf("shard %s replica %d: %w", l.Shard, l.Replica, err)
	}
	return view, nil
}

// claimed is what a replica has by a state or seed.
func claimed(v shard.View) (span shard.Span, any bool) {
	switch {
	case v.Descriptor != nil:
		return v.Descriptor.Span, true
	case v.Frozen != nil:
		return v.Frozen.Descriptor.Span, true
	}
	return shard.Span{}, false
}

// claims lists what a replica has: by its state, or by a seed that it has not consumed.
func claims(e *engine.Engine, id shard.ID, replica shard.ReplicaID) (all []shard.Span, err error) {
	for _, kind := range []byte{StateKind, SeedKind} {
		raw, err := e.Local(id, replica, kind)
		if err != nil {
			return nil, err
		}
		if raw == nil {
			continue
		}
		view, err := claimOf(engine.LocalRecord{Shard: id, Replica: replica, Kind: kind, Value: raw})
		if err != nil {
			return nil, err
		}
		if span, any := claimed(view); any {
			all = append(all, span)
		}
	}
	return all, nil
}

// unclaimed is what of a span no replica of the node has except, maybe, the one named. A frozen neighbour counts,
// whoever it was frozen for: what it has is removed with it.
func unclaimed(e *engine.Engine, span shard.Span, id shard.ID, replica shard.ReplicaID) ([]shard.Span, error) {
	locals, err := e.Locals()
	if err != nil {
		return nil, err
	}
	left := []shard.Span{span}
	for _, l := range locals {
		if l.Shard == id && l.Replica == replica {
			continue
		}
		view, err := claimOf(l)
		if err != nil {
			return nil, err
		}
		if has, any := claimed(view); any {
			left = without(left, has)
		}
	}
	return left, nil
}

// without returns what is left of spans after taking out another.
func without(spans []shard.Span, other shard.Span) (left []shard.Span) {
	for _, s := range spans {
		cut := s.Intersect(other)
		if cut.Empty() {
			left = append(left, s)
			continue
		}
		if before := (shard.Span{Start: s.Start, End: cut.Start}); len(cut.Start) > 0 && !before.Empty() {
			left = append(left, before)
		}
		if after := (shard.Span{Start: cut.End, End: s.End}); len(cut.End) > 0 && !after.Empty() {
			left = append(left, after)
		}
	}
	return left
}

// errTaken: keys that were to be removed have got an owner.
var errTaken = errors.New("another replica has got some of the keys")

// Discard removes the data of a replica that has closed and will not be opened again, except for keys that other
// replicas of the node have (A17).
func Discard(e *engine.Engine, id shard.ID, replica shard.ReplicaID) error {
	for {
		err := discard(e, id, replica)
		if !errors.Is(err, errTaken) {
			return err
		}
	}
}

func discard(e *engine.Engine, id shard.ID, replica shard.ReplicaID) error {
	has, err := claims(e, id, replica)
	if err != nil {
		return err
	}
	for _, span := range has {
		nobodys, err := unclaimed(e, span, id, replica)
		if err != nil {
			return err
		}
		for _, s := range nobodys {
			may := func() error {
				still, err := unclaimed(e, s, id, replica)
				if err == nil && !(len(still) == 1 && still[0].Equal(s)) {
					err = errTaken
				}
				return err
			}
			if err := e.ReplaceIf(s, may, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// Forget removes the records of a replica whose data was discarded, and puts others in their place. What the others
// have given up since then is nobody's either, because this replica's records still named it: it goes with them.
func Forget(e *engine.Engine, id shard.ID, replica shard.ReplicaID, instead ...engine.KV) error {
	return e.DeleteReplica(id, replica, func(b *pebble.Batch) error {
		has, err := claims(e, id, replica)
		if err != nil {
			return err
		}
		return clearUnclaimed(e, b, has, id, replica)
	}, instead...)
}

// poison ends the replica's part in its group for good: of what it was sent it can take
// nothing in, and the log does not bring it again. What its state gave it goes in the same step: nobody
// would know later that it is there. A seed stays, and what that gave it.
func (m *Machine) poison(e *ownedError) error {
	if err := m.poisonState(e.applied); err != nil {
		return err
	}
	return m.engine.Sync() // as what a snapshot brings is durable
}

func (m *Machine) poisonState(applied uint64) (err error) {
	had := abandonment{}
	if span, any := claimed(m.View()); any {
		had = abandonment{span}
	}
	b := m.engine.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := m.setState(b, shard.View{Applied: applied, Poisoned: true}); err != nil {
		return err
	}
	m.engine.Owners.Lock()
	defer m.engine.Owners.Unlock()
	if err := m.abandon(b, had); err != nil {
		return err
	}
	return m.engine.Commit(b)
}

// abandonment is keys that a replica gives up and that nobody on the node gets.
type abandonment []shard.Span

// abandon adds the removal of data that is nobody's from now on to the batch that gives the keys up: until then
// they are this replica's, afterwards no record would name them. By A10 nobody else has any of them. But what
// is removed does not come back, so the others' records are asked all the same. engine.Owners is held.
func (m *Machine) abandon(b *pebble.Batch, given abandonment) error {
	return clearUnclaimed(m.engine, b, given, m.id, m.replica)
}

// clearUnclaimed adds the removal of what no replica of the node has, except, maybe, the one named. engine.Owners is
// held.
func clearUnclaimed(e *engine.Engine, b *pebble.Batch, spans []shard.Span, id shard.ID, replica shard.ReplicaID) error {
	for _, span := range spans {
		nobodys, err := unclaimed(e, span, id, replica)
		if err != nil {
			return err
		}
		for _, s := range nobodys {
			if err := e.Clear(b, s); err != nil {
				return err
			}
		}
	}
	return nil
}
