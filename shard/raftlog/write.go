package raftlog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// SaveBootstrapInfo implements raftio.ILogDB. It does not wait for the disk: dragonboat holds
// up every start and stop of the node meanwhile. What the replica promises later is durable
// after it (R2), so one of which it is lost has promised nothing; who has to know that it is
// there calls Sync.
func (l *Log) SaveBootstrapInfo(shardID, replicaID uint64, info raftpb.Bootstrap) error {
	b := l.db.NewBatch()
	defer b.Close()
	err := setMessage(b, recordKey(shardID, replicaID, kindBootstrap), &info)
	if err == nil {
		err = l.commit(b, false)
	}
	if err != nil {
		return fmt.Errorf("save the first members of shard %d: %w", shardID, err)
	}
	return nil
}

// Sync makes durable what was written before the call.
func (l *Log) Sync() error {
	if err := l.db.LogData(nil, pebble.Sync); err != nil {
		return fmt.Errorf("sync the Raft log: %w", err)
	}
	return nil
}

// SaveSnapshots implements raftio.ILogDB. A record that is not newer than the one there
// is left out.
func (l *Log) SaveSnapshots(updates []raftpb.Update) error {
	return l.change("save snapshot records", func(b *pebble.Batch) error {
		for i := range updates {
			u := &updates[i]
			held, err := l.GetSnapshot(u.ShardID, u.ReplicaID)
			if err != nil {
				return err
			}
			if raftpb.IsEmptySnapshot(u.Snapshot) || u.Snapshot.Index <= held.Index {
				continue
			}
			if err := setMessage(b, recordKey(u.ShardID, u.ReplicaID, kindSnapshot), &u.Snapshot); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveEntriesTo implements raftio.ILogDB. Nothing rests on the removal, so it is not
// waited for.
func (l *Log) RemoveEntriesTo(shardID, replicaID, index uint64) error {
	err := l.db.DeleteRange(entryKey(shardID, replicaID, 0), entryKey(shardID, replicaID, index+1), pebble.NoSync)
	if err != nil {
		return fmt.Errorf("remove entries of shard %d up to %d: %w", shardID, index, err)
	}
	return nil
}

// CompactEntriesTo implements raftio.ILogDB. The store gives the space of removed ranges
// back by itself.
func (l *Log) CompactEntriesTo(uint64, uint64, uint64) (<-chan struct{}, error) {
	done := make(chan struct{})
	close(done)
	return done, nil
}

// RemoveNodeData implements raftio.ILogDB: the replica is gone for good.
func (l *Log) RemoveNodeData(shardID, replicaID uint64) error {
	err := l.change(fmt.Sprintf("remove replica %d of shard %d from the Raft log", replicaID, shardID), func(b *pebble.Batch) error {
		return b.DeleteRange(appendReplica(nil, shardID, replicaID), replicaEnd(shardID, replicaID), nil)
	})
	l.known.Lock()
	delete(l.known.replicas, raftio.GetNodeInfo(shardID, replicaID))
	l.known.Unlock()
	return err
}

// ImportSnapshot implements raftio.ILogDB. It is for a repair that is not done this way:
// a group that has lost its majority is restored from a backup.
func (l *Log) ImportSnapshot(snapshot raftpb.Snapshot, _ uint64) error {
	return fmt.Errorf("import a snapshot of shard %d into the Raft log: %w", snapshot.ShardID, errors.ErrUnsupported)
}

// change writes what fill puts into a batch, durably; nothing when that is nothing.
func (l *Log) change(what string, fill func(b *pebble.Batch) error) error {
	b := l.db.NewBatch()
	defer b.Close()
	err := fill(b)
	if err == nil && !b.Empty() {
		err = l.commit(b, true)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
