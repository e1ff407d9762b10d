package apply

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// CollectionKind is the kind of the engine's local record that says how far a replica's
// superseded versions are gone. What replaces the span's data removes it: the versions
// that came in are the sender's, its garbage included.
const CollectionKind byte = 5

const collectionFormat = 1

// garbage is the replica's part in dropping what a compaction lets go.
type garbage struct {
	// Held over a whole step, from reading what is there to committing what goes, and over
	// what replaces the data. A step that read the old data would take single versions out
	// of the new, and below a tombstone so removed an older version comes to life again.
	sync.Mutex
	record shardpb.Collection // as stored
	closed bool
}

// Collection is what one step of Collect did.
type Collection struct {
	// Ran is false when there was nothing to do, or not now: a snapshot is being installed.
	Ran bool
	// Done says that the walk is over: Collected has risen to its compaction.
	Done              bool
	Versions, Dropped int // looked at; removed
	Bytes             int64
	Histories         int // that were removed from a version on, without a look at what there was
}

// Collected is the revision up to which everything is gone that compactions let go.
func (m *Machine) Collected() shard.Revision { return shard.Revision(m.collected.Load()) }

// Collect does one bounded step of the walk over the span that drops what the compacted
// revision lets go. A walk has the compacted revision it began with; a later one goes over
// what changed since (package mvcc). Where it is is stored with what it drops, so that a
// restart goes on there. It is not for the apply worker, and runs beside it: the two never
// write the same key, because a version at or below the compacted revision is final. Those are
// in the store, whatever is kept: a COMPACT is stored at once, with all before it.
func (m *Machine) Collect(limits mvcc.CollectLimits) (Collection, error) {
	if !m.garbage.TryLock() {
		return Collection{}, nil
	}
	defer m.garbage.Unlock()
	view := m.View()
	if m.garbage.closed || view.Descriptor == nil || view.Compacted <= m.Collected() {
		return Collection{}, nil
	}
	step, err := m.collect(view, limits)
	if err != nil {
		return Collection{}, fmt.Errorf("collect garbage of shard %s replica %d: %w", m.id, m.replica, err)
	}
	return step, nil
}

func (m *Machine) collect(view shard.View, limits mvcc.CollectLimits) (step Collection, err error) {
	at := &m.garbage.record
	next := shardpb.Collection{Format: collectionFormat, Collected: at.Collected, Target: at.Target}
	if next.Target == 0 {
		next.Target = int64(view.Compacted)
	}
	b := m.engine.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	out, err := mvcc.Collect(m.engine.NewReader(), b, view.Descriptor.Span, shard.Revision(next.Collected), shard.Revision(next.Target), at.Next, limits)
	if err != nil {
		return Collection{}, err
	}
	if next.Next = out.Next; out.Next == nil {
		next.Collected, next.Target = next.Target, 0
	}
	if err := setCollection(b, m.id, m.replica, &next); err != nil {
		return Collection{}, err
	}
	if err := m.engine.Commit(b); err != nil {
		return Collection{}, err
	}
	m.adoptCollection(&next)
	return Collection{Ran: true, Done: out.Next == nil, Versions: out.Versions, Dropped: out.Dropped, Bytes: out.Bytes, Histories: out.Histories}, nil
}

func setCollection(b *pebble.Batch, id shard.ID, replica shard.ReplicaID, c *shardpb.Collection) error {
	data, err := c.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode collection record: %w", err)
	}
	if err := b.Set(engine.LocalKey(id, replica, CollectionKind), data, nil); err != nil {
		return fmt.Errorf("write collection record: %w", err)
	}
	return nil
}

// loadCollection takes over what the engine holds; no record means that nothing is known
// to be gone.
func (m *Machine) loadCollection() error {
	data, err := m.engine.Local(m.id, m.replica, CollectionKind)
	if err != nil {
		return err
	}
	var c shardpb.Collection
	if err := c.UnmarshalVT(data); err != nil {
		return fmt.Errorf("decode collection record: %w: %w", shard.ErrCorrupt, err)
	}
	if data != nil && c.Format != collectionFormat {
		return fmt.Errorf("decode collection record: format %d is not known to this version of flotilla", c.Format)
	}
	m.adoptCollection(&c)
	return nil
}

func (m *Machine) adoptCollection(c *shardpb.Collection) {
	m.garbage.record = shardpb.Collection{Collected: c.Collected, Target: c.Target, Next: c.Next}
	m.collected.Store(c.Collected)
}
