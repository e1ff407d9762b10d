package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// Log is the Raft log of a node. It is safe for concurrent use by different replicas;
// dragonboat never writes for one replica from two goroutines.
type Log struct {
	db      *pebble.DB
	metrics *metrics
	synced  func(took time.Duration)

	// known remembers, of each replica, what a write must be compared with.
	known struct {
		sync.Mutex
		replicas map[raftio.NodeInfo]known
	}
}

// known is what the store holds of a replica.
type known struct {
	term, vote uint64
	snapshot   uint64 // index of the record
	last       uint64 // entry; 0 when there is none
}

var _ raftio.ILogDB = (*Log)(nil)

// Open opens the log in folder, making it if need be.
func Open(folder string, o Options) (*Log, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Busy == nil {
		o.Busy = func(bool) {}
	}
	if o.Synced == nil {
		o.Synced = func(time.Duration) {}
	}
	db, err := pebble.Open(folder, o.pebble())
	if err != nil {
		return nil, fmt.Errorf("open the Raft log in %s: %w", folder, err)
	}
	l := &Log{db: db, metrics: newMetrics(o.Registerer), synced: o.Synced}
	l.known.replicas = make(map[raftio.NodeInfo]known)
	return l, nil
}

// Name implements raftio.ILogDB.
func (l *Log) Name() string { return name }

// BinaryFormat implements raftio.ILogDB.
func (l *Log) BinaryFormat() uint32 { return binaryFormat }

// Close implements raftio.ILogDB.
func (l *Log) Close() error {
	if err := l.db.Close(); err != nil {
		return fmt.Errorf("close the Raft log: %w", err)
	}
	return nil
}

// SaveRaftState implements raftio.ILogDB: all updates in one write, synced if any of
// them holds what Raft promises others (R1).
func (l *Log) SaveRaftState(updates []raftpb.Update, _ uint64) error {
	b := l.db.NewBatch()
	defer b.Close()
	durable := false
	after := make([]known, len(updates))
	for i := range updates {
		must, k, err := l.add(b, &updates[i])
		if err != nil {
			return fmt.Errorf("save the Raft state of shard %d: %w", updates[i].ShardID, err)
		}
		durable, after[i] = durable || must, k
	}
	if b.Empty() {
		return nil
	}
	if err := l.commit(b, durable); err != nil {
		return err
	}
	l.known.Lock()
	defer l.known.Unlock()
	for i := range updates {
		l.known.replicas[raftio.GetNodeInfo(updates[i].ShardID, updates[i].ReplicaID)] = after[i]
	}
	return nil
}

// add puts one replica's update into the batch and reports whether it must be durable.
func (l *Log) add(b *pebble.Batch, u *raftpb.Update) (durable bool, k known, err error) {
	if k, err = l.replica(u.ShardID, u.ReplicaID); err != nil {
		return false, k, err
	}
	if !raftpb.IsEmptyState(u.State) {
		durable = u.State.Term != k.term || u.State.Vote != k.vote
		k.term, k.vote = u.State.Term, u.State.Vote
		if err := setMessage(b, appendRecord(nil, u.ShardID, u.ReplicaID, kindState), &u.State); err != nil {
			return false, k, err
		}
	}
	if u.Snapshot.Index > k.snapshot { // Raft tells it until it hears that it was saved
		durable = true
		if err := l.addReceived(b, u); err != nil {
			return false, k, err
		}
		k.snapshot, k.last = u.Snapshot.Index, u.Snapshot.Index
	}
	if n := len(u.EntriesToSave); n > 0 {
		durable = true
		last := u.EntriesToSave[n-1].Index
		if err := l.addEntries(b, u, k.last); err != nil {
			return false, k, err
		}
		k.last = last
	}
	return durable, k, nil
}

// addReceived takes over a snapshot that was received: the log begins after it.
func (l *Log) addReceived(b *pebble.Batch, u *raftpb.Update) error {
	return errors.Join(
		setMessage(b, recordKey(u.ShardID, u.ReplicaID, kindSnapshot), &u.Snapshot),
		b.DeleteRange(entryKey(u.ShardID, u.ReplicaID, 0), entriesEnd(u.ShardID, u.ReplicaID), nil),
	)
}

// addEntries appends entries, in place of all that have their index or a higher one (R3).
func (l *Log) addEntries(b *pebble.Batch, u *raftpb.Update, last uint64) error {
	entries := u.EntriesToSave
	if end := entries[len(entries)-1].Index; end < last {
		if err := b.DeleteRange(entryKey(u.ShardID, u.ReplicaID, end+1), entriesEnd(u.ShardID, u.ReplicaID), nil); err != nil {
			return err
		}
	}
	for i := range entries {
		e := &entries[i]
		op := b.SetDeferred(entryLength, e.Size())
		appendEntry(op.Key[:0], u.ShardID, u.ReplicaID, e.Index)
		if _, err := e.MarshalTo(op.Value); err != nil {
			return fmt.Errorf("encode entry %d: %w", e.Index, err)
		}
		if err := op.Finish(); err != nil {
			return err
		}
	}
	return nil
}

// message is what dragonboat's generated types have in common.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

func setMessage(b *pebble.Batch, key []byte, m message) error {
	data, err := m.Marshal()
	if err != nil {
		return fmt.Errorf("encode %T: %w", m, err)
	}
	return b.Set(key, data, nil)
}

func (l *Log) commit(b *pebble.Batch, durable bool) error {
	l.metrics.bytes.Add(float64(b.Len()))
	if !durable {
		l.metrics.lazily.Inc()
		if err := b.Commit(pebble.NoSync); err != nil {
			return fmt.Errorf("write the Raft log: %w", err)
		}
		return nil
	}
	began := time.Now()
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("write the Raft log: %w", err)
	}
	took := time.Since(began)
	l.metrics.syncs.Observe(took.Seconds())
	l.synced(took)
	return nil
}

// replica returns what the store holds of a replica.
func (l *Log) replica(shardID, replicaID uint64) (known, error) {
	id := raftio.GetNodeInfo(shardID, replicaID)
	l.known.Lock()
	k, ok := l.known.replicas[id]
	l.known.Unlock()
	if ok {
		return k, nil
	}
	var state raftpb.State
	if _, err := l.get(recordKey(shardID, replicaID, kindState), &state); err != nil {
		return known{}, err
	}
	snapshot, err := l.GetSnapshot(shardID, replicaID)
	if err != nil {
		return known{}, err
	}
	_, last, err := l.bounds(shardID, replicaID, 0)
	return known{term: state.Term, vote: state.Vote, snapshot: snapshot.Index, last: last}, err
}

// get reads a record and reports whether there is one.
func (l *Log) get(key []byte, into message) (bool, error) {
	data, closer, err := l.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the Raft log: %w", err)
	}
	err = errors.Join(into.Unmarshal(data), closer.Close())
	if err != nil {
		return false, fmt.Errorf("decode record %x of the Raft log: %w: %w", key, shard.ErrCorrupt, err)
	}
	return true, nil
}

// bounds returns the first entry from an index on, and the last one; 0 for none.
func (l *Log) bounds(shardID, replicaID, from uint64) (first, last uint64, err error) {
	it, err := l.db.NewIter(&pebble.IterOptions{
		LowerBound: entryKey(shardID, replicaID, from), UpperBound: entriesEnd(shardID, replicaID),
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read the Raft log: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.First() {
		return 0, 0, it.Error()
	}
	if first, err = decodeIndex(it.Key()); err != nil {
		return 0, 0, err
	}
	if !it.Last() {
		return 0, 0, it.Error()
	}
	last, err = decodeIndex(it.Key())
	return first, last, err
}
