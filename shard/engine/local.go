package engine

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
)

// LocalRecord is one record a replica keeps about itself.
type LocalRecord struct {
	Shard   shard.ID
	Replica shard.ReplicaID
	Kind    byte
	Value   []byte
}

// Local reads a replica's record of the kind. It returns nil when there is none.
func (e *Engine) Local(id shard.ID, replica shard.ReplicaID, kind byte) ([]byte, error) {
	v, closer, err := e.db.Get(LocalKey(id, replica, kind))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read local record %d of replica %d of shard %s: %w", kind, replica, id, err)
	}
	// Not bytes.Clone: an empty record must not read as a missing one.
	v = append(make([]byte, 0, len(v)), v...)
	return v, closer.Close()
}

// Locals lists the records of every replica on the node, by shard, replica, kind.
func (e *Engine) Locals() ([]LocalRecord, error) {
	lower, upper := localBounds()
	return e.locals(lower, upper)
}

func (e *Engine) locals(lower, upper []byte) (out []LocalRecord, err error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("list local records: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		var r LocalRecord
		if r.Shard, r.Replica, r.Kind, err = decodeLocalKey(it.Key()); err != nil {
			return nil, err
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("list local records: %w", err)
		}
		r.Value = bytes.Clone(v)
		out = append(out, r)
	}
	return out, nil
}

// DeleteReplica removes every local record of the replica, durably. The data of its
// span stays: what becomes of it depends on who owns the span now (see Replace).
func (e *Engine) DeleteReplica(id shard.ID, replica shard.ReplicaID) error {
	end := append(LocalKey(id, replica, 0xff), sentinel) // just after the highest kind
	records, err := e.locals(LocalKey(id, replica, 0), end)
	if err != nil {
		return fmt.Errorf("delete replica %d of shard %s: %w", replica, id, err)
	}
	b := e.db.NewBatch()
	defer b.Close()
	for _, r := range records {
		if err := b.Delete(LocalKey(r.Shard, r.Replica, r.Kind), nil); err != nil {
			return fmt.Errorf("delete replica %d of shard %s: %w", replica, id, err)
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("delete replica %d of shard %s: %w", replica, id, err)
	}
	return nil
}
