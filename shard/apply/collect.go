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

// CollectionKind is the kind of the engine's local record of how far a replica's superseded
// versions have been collected. Replacing the span's data removes it: the new versions are the
// sender's, including its garbage.
const CollectionKind byte = 5

const collectionFormat = 1

// garbage is the state of the replica's garbage collection.
type garbage struct {
	// Held over a whole step, from reading to committing, and while the data is replaced. A step
	// that had read the old data would delete single versions of the new data, and deleting a
	// tombstone resurrects the older version below it.
	sync.Mutex
	record shardpb.Collection // as stored
	closed bool
}

// Collection is what one step of Collect did.
type Collection struct {
	// Ran is false when there was nothing to do, or when nothing can be done because a snapshot is
	// being installed.
	Ran bool
	// Done says that the walk is complete: Collected has risen to its compaction revision.
	Done              bool
	Versions, Dropped int // looked at; removed
	Bytes             int64
	Histories         int // that were removed from a version on, without a look at what there was
}

// Collected is the revision up to which all garbage of compactions has been collected.
func (m *Machine) Collected() shard.Revision { return shard.Revision(m.collected.Load()) }

// Collect does one bounded step of the walk over the span that deletes the garbage of compactions. A walk
// keeps the compaction revision with which it began; the next walk covers what changed since (package mvcc).
// Its position is stored with its deletions, so that it resumes after a restart. Collect runs beside the apply
// worker, not on it: the two never write the same key, because a version at or below the compaction revision
// is final. Such versions are all in the store, even if a backlog is kept: a COMPACT is stored at once, with
// everything before it.
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

// loadCollection loads the engine's record; without one, nothing is known to be collected.
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
