package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// ReadRaftState implements raftio.ILogDB: it counts the entries after the snapshot with the given
// index.
func (l *Log) ReadRaftState(shardID, replicaID, snapshot uint64) (raftio.RaftState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.replicas[raftio.GetNodeInfo(shardID, replicaID)]
	if r == nil || r.record(kindState).data == nil {
		return raftio.RaftState{}, raftio.ErrNoSavedLog
	}
	s := raftio.RaftState{State: r.state, FirstIndex: snapshot}
	if len(r.places) > 0 && r.end()-1 > snapshot {
		s.FirstIndex = max(r.first, snapshot)
		s.EntryCount = r.end() - s.FirstIndex
	}
	return s, nil
}

// IterateEntries implements raftio.ILogDB: it appends entries of [low, high) until they exceed
// maxBytes, including the one that passes the limit. The caller notices if entries were removed
// meanwhile.
func (l *Log) IterateEntries(entries []raftpb.Entry, bytes, shardID, replicaID, low, high, maxBytes uint64) (_ []raftpb.Entry, _ uint64, err error) {
	used, err := l.use(raftio.GetNodeInfo(shardID, replicaID), low, high)
	if err != nil {
		return nil, 0, fmt.Errorf("read the Raft log of shard %d: %w", shardID, err)
	}
	defer func() { err = errors.Join(err, l.releaseAll(used)) }()
	var buf []byte
	for i, u := range used {
		if bytes > maxBytes {
			break
		}
		frame, message, err := u.segment.readEntry(l.folder, u.place, buf)
		if err != nil {
			return nil, 0, fmt.Errorf("read the Raft log of shard %d: %w", shardID, err)
		}
		buf = frame
		var e raftpb.Entry
		if err := e.Unmarshal(message); err != nil {
			return nil, 0, fmt.Errorf("decode entry of the Raft log of shard %d: %w: %w", shardID, shard.ErrCorrupt, err)
		}
		if e.Index != low+uint64(i) {
			return nil, 0, fmt.Errorf("entry %d of the Raft log of shard %d says it is %d: %w", low+uint64(i), shardID, e.Index, shard.ErrCorrupt)
		}
		bytes += uint64(e.SizeUpperLimit())
		entries = append(entries, e)
	}
	return entries, bytes, nil
}

// usedPlace can be read until its segment is released.
type usedPlace struct {
	place   place
	segment *segment
}

// use returns the places of a replica's entries of [low, high), none when it does not have the
// first of them.
func (l *Log) use(id raftio.NodeInfo, low, high uint64) ([]usedPlace, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.replicas[id]
	if r == nil || low < r.first || low >= min(high, r.end()) {
		return nil, nil
	}
	if err := l.write(); err != nil { // it can be read only then
		return nil, err
	}
	return l.usePlaces(r.places[low-r.first : min(high, r.end())-r.first]), nil
}

func (l *Log) usePlaces(places []place) []usedPlace {
	used := make([]usedPlace, len(places))
	for i, p := range places {
		s := l.segment(p.segment)
		s.readers++
		used[i] = usedPlace{p, s}
	}
	return used
}

func (l *Log) releaseAll(used []usedPlace) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, u := range used {
		errs = append(errs, l.release(u.segment))
	}
	return errors.Join(errs...)
}

// ListNodeInfo implements raftio.ILogDB: the replicas that were ever started here.
func (l *Log) ListNodeInfo() (replicas []raftio.NodeInfo, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range l.replicas {
		if r.record(kindBootstrap).data != nil {
			replicas = append(replicas, id)
		}
	}
	slices.SortFunc(replicas, func(a, b raftio.NodeInfo) int {
		return cmp.Or(cmp.Compare(a.ShardID, b.ShardID), cmp.Compare(a.ReplicaID, b.ReplicaID))
	})
	return replicas, nil
}

// GetBootstrapInfo implements raftio.ILogDB.
func (l *Log) GetBootstrapInfo(shardID, replicaID uint64) (raftpb.Bootstrap, error) {
	var b raftpb.Bootstrap
	found, err := l.get(shardID, replicaID, kindBootstrap, &b)
	if err == nil && !found {
		err = raftio.ErrNoBootstrapInfo
	}
	return b, err
}

// GetSnapshot implements raftio.ILogDB: the latest snapshot's record, empty for none.
func (l *Log) GetSnapshot(shardID, replicaID uint64) (raftpb.Snapshot, error) {
	var s raftpb.Snapshot
	_, err := l.get(shardID, replicaID, kindSnapshot, &s)
	return s, err
}

// get decodes a record and reports whether there is one.
func (l *Log) get(shardID, replicaID uint64, k kind, into message) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.replicas[raftio.GetNodeInfo(shardID, replicaID)]
	if r == nil || r.record(k).data == nil {
		return false, nil
	}
	if err := into.Unmarshal(r.record(k).data); err != nil {
		return false, fmt.Errorf("decode record %d of shard %d in the Raft log: %w: %w", k, shardID, shard.ErrCorrupt, err)
	}
	return true, nil
}
