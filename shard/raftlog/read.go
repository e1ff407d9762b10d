package raftlog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// ReadRaftState implements raftio.ILogDB: the entries counted are those behind the
// snapshot of the given index.
func (l *Log) ReadRaftState(shardID, replicaID, snapshot uint64) (raftio.RaftState, error) {
	var s raftio.RaftState
	found, err := l.get(recordKey(shardID, replicaID, kindState), &s.State)
	if err != nil {
		return s, err
	}
	if !found {
		return s, raftio.ErrNoSavedLog
	}
	first, last, err := l.bounds(shardID, replicaID, snapshot)
	if err != nil {
		return s, err
	}
	s.FirstIndex = snapshot
	if last > snapshot {
		s.FirstIndex, s.EntryCount = first, last-first+1
	}
	return s, nil
}

// IterateEntries implements raftio.ILogDB: it appends entries of [low, high) until
// they are more than maxBytes, the one that passes the limit included.
func (l *Log) IterateEntries(entries []raftpb.Entry, bytes, shardID, replicaID, low, high, maxBytes uint64) (_ []raftpb.Entry, _ uint64, err error) {
	it, err := l.db.NewIter(&pebble.IterOptions{
		LowerBound: entryKey(shardID, replicaID, low), UpperBound: entryKey(shardID, replicaID, high),
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the Raft log of shard %d: %w", shardID, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid() && bytes <= maxBytes; it.Next() {
		var e raftpb.Entry
		data, err := it.ValueAndErr()
		if err != nil {
			return nil, 0, fmt.Errorf("read the Raft log of shard %d: %w", shardID, err)
		}
		if err := e.Unmarshal(data); err != nil {
			return nil, 0, fmt.Errorf("decode entry of the Raft log of shard %d: %w: %w", shardID, shard.ErrCorrupt, err)
		}
		if e.Index != low {
			break // compacted meanwhile; the caller sees what is missing
		}
		low++
		bytes += uint64(e.SizeUpperLimit())
		entries = append(entries, e)
	}
	if err := it.Error(); err != nil {
		return nil, 0, fmt.Errorf("read the Raft log of shard %d: %w", shardID, err)
	}
	return entries, bytes, nil
}

// ListNodeInfo implements raftio.ILogDB: the replicas that were ever started here.
func (l *Log) ListNodeInfo() (replicas []raftio.NodeInfo, err error) {
	it, err := l.db.NewIter(nil)
	if err != nil {
		return nil, fmt.Errorf("list the replicas of the Raft log: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for valid := it.First(); valid; {
		id, kind, err := decodeReplica(it.Key())
		if err != nil {
			return nil, err
		}
		if kind == kindBootstrap {
			replicas = append(replicas, id)
		}
		valid = it.SeekGE(replicaEnd(id.ShardID, id.ReplicaID))
	}
	return replicas, it.Error()
}

// GetBootstrapInfo implements raftio.ILogDB.
func (l *Log) GetBootstrapInfo(shardID, replicaID uint64) (raftpb.Bootstrap, error) {
	var b raftpb.Bootstrap
	found, err := l.get(recordKey(shardID, replicaID, kindBootstrap), &b)
	if err == nil && !found {
		err = raftio.ErrNoBootstrapInfo
	}
	return b, err
}

// GetSnapshot implements raftio.ILogDB: the latest snapshot's record, empty for none.
func (l *Log) GetSnapshot(shardID, replicaID uint64) (raftpb.Snapshot, error) {
	var s raftpb.Snapshot
	_, err := l.get(recordKey(shardID, replicaID, kindSnapshot), &s)
	return s, err
}
