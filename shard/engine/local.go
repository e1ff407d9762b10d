package engine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
)

// LocalRecord is a record that a replica keeps about itself.
type LocalRecord struct {
	Shard   shard.ID
	Replica shard.ReplicaID
	Kind    byte
	// Suffix tells records of the same kind apart; empty for a kind with only one.
	Suffix []byte
	Value  []byte
}

// Local reads a replica's only record of this kind. It returns nil if there is none.
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

// LocalsOf lists a replica's records of this kind, ordered by suffix.
func (e *Engine) LocalsOf(id shard.ID, replica shard.ReplicaID, kind byte) ([]LocalRecord, error) {
	return e.locals(LocalKey(id, replica, kind), after(append(replicaPrefix(id, replica), kind)))
}

// Locals lists the records of every replica on the node, ordered by shard, replica, kind and suffix.
func (e *Engine) Locals() ([]LocalRecord, error) {
	return e.locals([]byte{localTag, sentinel}, after([]byte{localTag}))
}

func (e *Engine) locals(lower, upper []byte) (out []LocalRecord, err error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("list local records: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		r, err := decodeLocalKey(it.Key())
		if err != nil {
			return nil, err
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("list local records: %w", err)
		}
		r.Value = bytes.Clone(v)
		out = append(out, r)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list local records: %w", err)
	}
	return out, nil
}

// DeleteReplica removes all local records of the replica and sets the given ones instead, durably and in one step.
// The data of its span stays: what happens to it depends on who owns the span now (see Replace). also, unless it is
// nil, adds to the same step what nobody else's records may change before (E9).
func (e *Engine) DeleteReplica(id shard.ID, replica shard.ReplicaID, also func(*pebble.Batch) error, instead ...KV) (err error) {
	prefix := replicaPrefix(id, replica)
	b := e.db.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	err = b.DeleteRange(append(slices.Clone(prefix), sentinel), after(prefix), nil)
	for _, kv := range instead {
		err = errors.Join(err, b.Set(kv.Key, kv.Value, nil))
	}
	if err == nil {
		err = e.commitOwned(b, also)
	}
	if err == nil {
		err = e.SyncAtLeisure()
	}
	if err != nil {
		return fmt.Errorf("delete replica %d of shard %s: %w", replica, id, err)
	}
	return nil
}

func (e *Engine) commitOwned(b *pebble.Batch, also func(*pebble.Batch) error) error {
	e.Owners.Lock()
	defer e.Owners.Unlock()
	if also != nil {
		if err := also(b); err != nil {
			return err
		}
	}
	return e.Commit(b)
}
