package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lni/dragonboat/v4"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// unloadTimeout bounds how long a removal waits for the replica's workers to finish.
const unloadTimeout = 10 * time.Second

// Remove takes a replica off the node for ever. The replica is stopped; its Raft log, its records and the data of its
// span are removed, except for keys that other replicas on the node have. Only a replica that is no longer a member of
// its group may be removed.
//
// The order of the steps matters. It must be durable that the replica never starts again (1) before its log is
// removed (3), and its span must stay known until its data is removed (4). So a crash at any point leaves a replica
// that is held, does not start, and can be removed again. Nothing is removed before the replica has closed (2):
// closing stores what it kept in memory, which nobody would remove later, and until then it answers reads.
func (h *Host) Remove(ctx context.Context, id shard.ID, replicaID shard.ReplicaID) error {
	if err := h.remove(ctx, id, replicaID); err != nil {
		return fmt.Errorf("remove shard %d replica %d from the node: %w", id, replicaID, err)
	}
	h.held.Lock()
	defer h.held.Unlock()
	delete(h.held.replicas, Held{id, replicaID})
	return nil
}

func (h *Host) remove(ctx context.Context, id shard.ID, replicaID shard.ReplicaID) error {
	record, err := h.record(id, replicaID)
	if err != nil {
		return err
	}
	switch record.Phase {
	case shardpb.ReplicaRecord_NONE, shardpb.ReplicaRecord_REMOVED:
		return nil
	case shardpb.ReplicaRecord_REMOVING:
	default:
		if err := h.enter(id, replicaID, shardpb.ReplicaRecord_REMOVING); err != nil { // 1
			return err
		}
	}
	err = h.nh.StopReplica(uint64(id), uint64(replicaID))
	if err != nil && !errors.Is(err, dragonboat.ErrShardNotFound) {
		return fmt.Errorf("stop it: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, unloadTimeout)
	defer cancel()
	if err := h.awaitEnd(ctx, Held{id, replicaID}); err != nil { // 2
		return err
	}
	if err := h.nh.SyncRemoveData(ctx, uint64(id), uint64(replicaID)); err != nil { // 3
		return fmt.Errorf("remove its log: %w", err)
	}
	// One after the other: each ends with a change of who has which keys, after which another must look again (E9).
	h.removing.Lock()
	defer h.removing.Unlock()
	if err := apply.Discard(h.cfg.Engine, id, replicaID); err != nil { // 4
		return err
	}
	gone, err := encodeRecord(id, replicaID, &shardpb.ReplicaRecord{Phase: shardpb.ReplicaRecord_REMOVED, Learner: record.Learner})
	if err != nil {
		return err
	}
	return apply.Forget(h.cfg.Engine, id, replicaID, gone)
}

// awaitEnd waits until a stopped replica has closed. SyncRemoveData does not always wait for that: dragonboat forgets
// a replica once its workers have released it, and another worker closes it later.
func (h *Host) awaitEnd(ctx context.Context, stopped Held) error {
	r, ok := h.Replica(stopped.Shard)
	if !ok || r.replicaID != stopped.Replica {
		return nil
	}
	select {
	case <-r.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for its end: %w", ctx.Err())
	}
}

// gone reports whether a replica was removed from the node, or is being removed.
func (h *Host) gone(id shard.ID, replicaID shard.ReplicaID) (bool, error) {
	record, err := h.record(id, replicaID)
	if err != nil {
		return false, err
	}
	return record.Phase >= shardpb.ReplicaRecord_REMOVING, nil
}

// FrozenOf returns the frozen state that a replica left for its left neighbour, or nil if it was not frozen.
func (h *Host) FrozenOf(r Held) (*shard.Frozen, error) {
	raw, err := h.cfg.Engine.Local(r.Shard, r.Replica, apply.StateKind)
	if raw == nil || err != nil {
		return nil, err
	}
	view, err := apply.UnmarshalState(raw)
	return view.Frozen, err
}

// SpanOf returns the span of the data that a replica may have. The second result is false if it has none.
func (h *Host) SpanOf(r Held) (shard.Span, bool, error) {
	for _, kind := range []byte{apply.StateKind, apply.SeedKind} {
		raw, err := h.cfg.Engine.Local(r.Shard, r.Replica, kind)
		if err != nil {
			return shard.Span{}, false, err
		}
		if raw == nil {
			continue
		}
		view, err := apply.UnmarshalState(raw)
		if err != nil {
			return shard.Span{}, false, err
		}
		if view.Descriptor != nil {
			return view.Descriptor.Span, true, nil
		}
		if view.Frozen != nil {
			return view.Frozen.Descriptor.Span, true, nil
		}
	}
	return shard.Span{}, false, nil
}
