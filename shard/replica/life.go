package replica

import (
	"errors"
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// recordKind is the kind of the engine's local record that holds a ReplicaRecord.
const recordKind byte = 2

// ErrRemoved: the replica was removed from this node and never returns (P5).
var ErrRemoved = errors.New("replica was removed")

// birth says how a replica starts for the first time: with the other initial members of its group, or empty in a
// group that exists.
type birth struct {
	members map[shard.ReplicaID]string
	join    bool
	learner bool // joins without a vote
}

// Held names a replica of which the node has something: a log, data or a record.
type Held struct {
	Shard   shard.ID
	Replica shard.ReplicaID
}

// Held lists the replicas that were started on the node and not removed from it.
func (h *Host) Held() []Held {
	h.held.Lock()
	defer h.held.Unlock()
	out := make([]Held, 0, len(h.held.replicas))
	for r := range h.held.replicas {
		out = append(out, r)
	}
	return out
}

// loadHeld reads from the engine which replicas the node holds.
func (h *Host) loadHeld() error {
	h.held.replicas = make(map[Held]struct{})
	locals, err := h.cfg.Engine.Locals()
	if err != nil {
		return fmt.Errorf("list the node's replicas: %w", err)
	}
	for _, l := range locals {
		if l.Kind != recordKind {
			continue
		}
		record, err := decodeRecord(l.Shard, l.Replica, l.Value)
		if err != nil {
			return err
		}
		if record.Phase != shardpb.ReplicaRecord_REMOVED {
			h.held.replicas[Held{l.Shard, l.Replica}] = struct{}{}
		}
	}
	return nil
}

func (h *Host) record(id shard.ID, replicaID shard.ReplicaID) (*shardpb.ReplicaRecord, error) {
	raw, err := h.cfg.Engine.Local(id, replicaID, recordKind)
	if err != nil {
		return nil, fmt.Errorf("read the record of shard %d replica %d: %w", id, replicaID, err)
	}
	return decodeRecord(id, replicaID, raw)
}

func decodeRecord(id shard.ID, replicaID shard.ReplicaID, raw []byte) (*shardpb.ReplicaRecord, error) {
	record := &shardpb.ReplicaRecord{}
	if err := record.UnmarshalVT(raw); err != nil {
		return nil, fmt.Errorf("decode the record of shard %d replica %d: %w: %w", id, replicaID, shard.ErrCorrupt, err)
	}
	return record, nil
}

func encodeRecord(id shard.ID, replicaID shard.ReplicaID, record *shardpb.ReplicaRecord) (engine.KV, error) {
	record.Format = 1
	data, err := record.MarshalVT()
	if err != nil {
		return engine.KV{}, fmt.Errorf("encode the record of shard %d replica %d: %w", id, replicaID, err)
	}
	return engine.KV{Key: engine.LocalKey(id, replicaID, recordKind), Value: data}, nil
}

// amend changes the record, unless change fails, and makes it durable with sync before it returns. A replica that starts
// or goes does that at leisure: no request waits for it, and all nodes of a shard that is split start one at the same time.
func (h *Host) amend(id shard.ID, replicaID shard.ReplicaID, sync func() error, change func(*shardpb.ReplicaRecord) error) error {
	if err := h.write(id, replicaID, change); err != nil {
		return err
	}
	if err := sync(); err != nil { // shared with the other replicas that start now
		return fmt.Errorf("write the record of shard %d replica %d: %w", id, replicaID, err)
	}
	h.held.Lock()
	defer h.held.Unlock()
	h.held.replicas[Held{id, replicaID}] = struct{}{}
	return nil
}

// write is amend without the sync.
func (h *Host) write(id shard.ID, replicaID shard.ReplicaID, change func(*shardpb.ReplicaRecord) error) error {
	h.records.Lock()
	defer h.records.Unlock()
	record, err := h.record(id, replicaID)
	if err != nil {
		return err
	}
	if err := change(record); err != nil {
		return err
	}
	kv, err := encodeRecord(id, replicaID, record)
	if err != nil {
		return err
	}
	b := h.cfg.Engine.NewBatch()
	if record.Phase == shardpb.ReplicaRecord_REMOVING {
		// It is given no keys any more: whoever is about to looks again afterwards.
		h.cfg.Engine.Owners.Lock()
		defer h.cfg.Engine.Owners.Unlock()
	}
	if err := errors.Join(b.Set(kv.Key, kv.Value, nil), h.cfg.Engine.Commit(b), b.Close()); err != nil {
		return fmt.Errorf("write the record of shard %d replica %d: %w", id, replicaID, err)
	}
	return nil
}

// enter changes the phase.
func (h *Host) enter(id shard.ID, replicaID shard.ReplicaID, phase shardpb.ReplicaRecord_Phase) error {
	return h.amend(id, replicaID, h.cfg.Engine.SyncAtLeisure, func(record *shardpb.ReplicaRecord) error {
		record.Phase = phase
		return nil
	})
}

// StartOnce calls start so that the replica starts empty at most once in its life (P5): with its
// group's initial members the first time, with none afterwards.
func (h *Host) StartOnce(id shard.ID, replicaID shard.ReplicaID, members map[shard.ReplicaID]string, start func(initial map[uint64]string, join, learner bool) error) error {
	return h.startOnce(id, replicaID, birth{members: members}, start)
}

// JoinOnce is StartOnce for a replica of a group that exists: it starts empty, and without a vote.
func (h *Host) JoinOnce(id shard.ID, replicaID shard.ReplicaID, start func(initial map[uint64]string, join, learner bool) error) error {
	return h.startOnce(id, replicaID, birth{join: true, learner: true}, start)
}

func (h *Host) startOnce(id shard.ID, replicaID shard.ReplicaID, b birth, launch func(initial map[uint64]string, join, learner bool) error) error {
	start := func(initial map[uint64]string, join, learner bool) error {
		stop := h.wakeups.remind(id)
		err := launch(initial, join, learner)
		stop()
		if err == nil {
			h.wind(Held{id, replicaID})
		}
		return err
	}
	record, err := h.record(id, replicaID)
	if err != nil {
		return err
	}
	hasLog := h.nh.HasNodeInfo(uint64(id), uint64(replicaID))
	switch {
	case record.Phase >= shardpb.ReplicaRecord_REMOVING:
		return fmt.Errorf("start shard %d replica %d: %w", id, replicaID, ErrRemoved)
	case hasLog && record.Phase == shardpb.ReplicaRecord_NONE:
		return fmt.Errorf("shard %d replica %d has a Raft log but its data is gone; its node must be removed from the cluster and join again with an empty data directory: %w", id, replicaID, shard.ErrCorrupt)
	case !hasLog && record.Phase == shardpb.ReplicaRecord_STARTED:
		return fmt.Errorf("shard %d replica %d has data but its Raft log is gone (or the host name changed); its node must be removed from the cluster and join again with an empty data directory: %w", id, replicaID, shard.ErrCorrupt)
	}
	if hasLog {
		if err := start(nil, false, record.Learner); err != nil {
			return err
		}
		if record.Phase == shardpb.ReplicaRecord_STARTED {
			return nil
		}
		// A crash came between the two records. Without the second one, a later loss of the log would go unnoticed.
		return h.started(id, replicaID)
	}
	if len(b.members) == 0 && !b.join { // dragonboat would end the process
		return fmt.Errorf("start shard %d replica %d anew: the group's first members are not known", id, replicaID)
	}
	// After a crash between STARTING and STARTED, it is unknown whether the replica ever ran. It is then started
	// afresh, which is wrong only if its log was also lost within these milliseconds.
	err = h.amend(id, replicaID, h.cfg.Engine.SyncAtLeisure, func(record *shardpb.ReplicaRecord) error {
		record.Phase, record.Learner = shardpb.ReplicaRecord_STARTING, b.learner
		return nil
	})
	if err != nil {
		return err
	}
	initial := make(map[uint64]string, len(b.members))
	for replica, addr := range b.members {
		initial[uint64(replica)] = addr
	}
	if err := start(initial, b.join, b.learner); err != nil {
		return err
	}
	return h.started(id, replicaID)
}

// started records that the replica has a log. The log is made durable first: a crash must not leave a record of a log
// that does not exist.
func (h *Host) started(id shard.ID, replicaID shard.ReplicaID) error {
	if err := h.cfg.Raft.Log.Sync(); err != nil {
		return fmt.Errorf("start shard %d replica %d: %w", id, replicaID, err)
	}
	return h.enter(id, replicaID, shardpb.ReplicaRecord_STARTED)
}
