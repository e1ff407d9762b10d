package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// SaveRaftState implements raftio.ILogDB: all updates in one record, synced if any of them contains
// something that Raft promises to others (R1).
func (l *Log) SaveRaftState(updates []raftpb.Update, _ uint64) error {
	letLeave(updates)
	err := l.save(func() (durable bool, err error) {
		for i := range updates {
			must, err := l.addUpdate(&updates[i])
			if err != nil {
				return false, fmt.Errorf("shard %d: %w", updates[i].ShardID, err)
			}
			durable = durable || must
		}
		return durable, nil
	})
	if err != nil {
		return fmt.Errorf("save the Raft state: %w", err)
	}
	return nil
}

// save appends what fill adds, and waits for the disk if fill asks for it.
func (l *Log) save(fill func() (durable bool, err error)) error {
	began, durable := time.Now(), false
	l.mu.Lock()
	end, err := l.append(func() (err error) {
		durable, err = fill()
		return err
	})
	s := l.newest()
	if oldest := l.segments[0]; oldest != s && oldest.live == 0 {
		l.wakeTidy()
	}
	l.mu.Unlock()
	if err != nil || end == 0 {
		return err
	}
	if !durable {
		l.metrics.lazily.Inc()
		return nil
	}
	if err := l.sync(s, end); err != nil {
		return err
	}
	took := time.Since(began)
	l.metrics.syncs.Observe(took.Seconds())
	l.synced(took)
	return nil
}

// addUpdate adds one replica's update to the record and reports whether it must be durable.
func (l *Log) addUpdate(u *raftpb.Update) (durable bool, err error) {
	id := raftio.GetNodeInfo(u.ShardID, u.ReplicaID)
	r := l.replica(id)
	if !raftpb.IsEmptyState(u.State) {
		durable = u.State.Term != r.state.Term || u.State.Vote != r.state.Vote
		if err := l.addMessageRecord(id, kindState, &u.State); err != nil {
			return false, err
		}
	}
	if u.Snapshot.Index > r.snapshot { // Raft tells it until it hears that it was saved
		durable = true
		if err := l.addMessageRecord(id, kindSnapshot, &u.Snapshot); err != nil {
			return false, err
		}
		l.addRemoved(id, math.MaxUint64) // the log begins after it
	}
	if len(u.EntriesToSave) > 0 {
		durable = true
		if err := l.addEntries(id, u.EntriesToSave); err != nil {
			return false, err
		}
	}
	return durable, nil
}

// message is what dragonboat's generated types have in common.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

func (l *Log) addRecord(id raftio.NodeInfo, k kind, data []byte) error {
	begin := len(l.pending)
	l.pending = append(beginItem(l.pending, k, id), data...)
	endItem(l.pending[begin:])
	return l.setRecord(l.replica(id), k, data, l.newest().number)
}

func (l *Log) addMessageRecord(id raftio.NodeInfo, k kind, m message) error {
	data, err := m.Marshal()
	if err != nil {
		return fmt.Errorf("encode %T: %w", m, err)
	}
	return l.addRecord(id, k, data)
}

func (l *Log) addRemoved(id raftio.NodeInfo, index uint64) {
	begin := len(l.pending)
	l.pending = beginItem(l.pending, kindRemoved, id)
	l.pending = binary.BigEndian.AppendUint64(l.pending, index)
	endItem(l.pending[begin:])
	l.removeEntries(l.replica(id), index)
}

// addEntries appends entries, replacing all with the same or a higher index (R3).
func (l *Log) addEntries(id raftio.NodeInfo, entries []raftpb.Entry) error {
	r, first := l.replica(id), entries[0].Index
	if len(r.places) > 0 && first > r.end() {
		return fmt.Errorf("entry %d would be behind a gap: the last one is %d", first, r.end()-1)
	}
	begin := l.beginEntries(kindEntries, id, first)
	places := make([]place, len(entries))
	for i := range entries {
		e := &entries[i]
		if e.Index != first+uint64(i) {
			return fmt.Errorf("entry %d follows entry %d", e.Index, first+uint64(i)-1)
		}
		at := len(l.pending)
		l.pending = append(l.pending, make([]byte, entryHeadLength)...)
		n := e.Size()
		l.pending = slices.Grow(l.pending, n)[:at+entryHeadLength+n]
		if _, err := e.MarshalTo(l.pending[at+entryHeadLength:]); err != nil {
			return fmt.Errorf("encode entry %d: %w", e.Index, err)
		}
		endEntry(l.pending[at:])
		places[i] = l.placeOf(at)
	}
	endItem(l.pending[begin:])
	l.setEntries(r, first, places)
	return nil
}

// addMoved appends copies of entries, whose places they are from now on.
func (l *Log) addMoved(id raftio.NodeInfo, index uint64, frames [][]byte) {
	begin := l.beginEntries(kindMoved, id, index)
	places := make([]place, len(frames))
	for i, frame := range frames {
		at := len(l.pending)
		l.pending = append(l.pending, frame...)
		l.metrics.moved.Add(float64(len(frame)))
		places[i] = l.placeOf(at)
	}
	endItem(l.pending[begin:])
	l.setMoved(l.replica(id), index, places)
}

func (l *Log) beginEntries(k kind, id raftio.NodeInfo, first uint64) (begin int) {
	begin = len(l.pending)
	l.pending = beginItem(l.pending, k, id)
	l.pending = binary.BigEndian.AppendUint64(l.pending, first)
	return begin
}

// placeOf is the future place of the pending data from at on.
func (l *Log) placeOf(at int) place {
	return place{segment: l.newest().number, offset: uint32(l.written) + uint32(at), length: uint32(len(l.pending) - at)}
}

// SaveBootstrapInfo implements raftio.ILogDB. It does not wait for the disk, because dragonboat
// blocks every start and stop of the node meanwhile. Whatever the replica promises later becomes
// durable after it (R2), so a replica whose record is lost has promised nothing; a caller that
// needs it durable calls Sync.
func (l *Log) SaveBootstrapInfo(shardID, replicaID uint64, info raftpb.Bootstrap) error {
	err := l.save(func() (bool, error) {
		return false, l.addMessageRecord(raftio.GetNodeInfo(shardID, replicaID), kindBootstrap, &info)
	})
	if err != nil {
		return fmt.Errorf("save the first members of shard %d: %w", shardID, err)
	}
	return nil
}

// SaveSnapshots implements raftio.ILogDB. A record that is not newer than the present one is
// ignored.
func (l *Log) SaveSnapshots(updates []raftpb.Update) error {
	err := l.save(func() (bool, error) {
		for i := range updates {
			u := &updates[i]
			id := raftio.GetNodeInfo(u.ShardID, u.ReplicaID)
			if raftpb.IsEmptySnapshot(u.Snapshot) || u.Snapshot.Index <= l.replica(id).snapshot {
				continue
			}
			if err := l.addMessageRecord(id, kindSnapshot, &u.Snapshot); err != nil {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("save snapshot records: %w", err)
	}
	return nil
}

// RemoveEntriesTo implements raftio.ILogDB. Nothing depends on the removal, so it is not waited
// for.
func (l *Log) RemoveEntriesTo(shardID, replicaID, index uint64) error {
	err := l.save(func() (bool, error) {
		l.addRemoved(raftio.GetNodeInfo(shardID, replicaID), index)
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("remove entries of shard %d up to %d: %w", shardID, index, err)
	}
	return nil
}

// CompactEntriesTo implements raftio.ILogDB. The log frees the space of removed entries
// automatically.
func (l *Log) CompactEntriesTo(uint64, uint64, uint64) (<-chan struct{}, error) {
	done := make(chan struct{})
	close(done)
	return done, nil
}

// RemoveNodeData implements raftio.ILogDB: the replica is gone for good.
func (l *Log) RemoveNodeData(shardID, replicaID uint64) error {
	err := l.save(func() (bool, error) {
		id := raftio.GetNodeInfo(shardID, replicaID)
		begin := len(l.pending)
		l.pending = beginItem(l.pending, kindGone, id)
		endItem(l.pending[begin:])
		l.forgetReplica(l.replica(id))
		delete(l.replicas, id)
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("remove replica %d of shard %d from the Raft log: %w", replicaID, shardID, err)
	}
	return nil
}

// ImportSnapshot implements raftio.ILogDB. It is for a kind of repair that is done differently
// here: restoring a group that has lost its majority from a backup.
func (l *Log) ImportSnapshot(snapshot raftpb.Snapshot, _ uint64) error {
	return fmt.Errorf("import a snapshot of shard %d into the Raft log: %w", snapshot.ShardID, errors.ErrUnsupported)
}
