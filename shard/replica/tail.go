package replica

import (
	"fmt"
	"math"
	"time"

	"github.com/lni/dragonboat/v4"
)

// tail measures the log from where it was truncated last. A bound on its entries is not enough: under load an entry is
// a batch of many requests, and thousands of them would be a gigabyte of each busy shard, which every start of the node
// reads again.
type tail struct {
	max size // from here on the log is truncated; 0 is no bound
	// older and newer are its last parts. They stay when it is truncated, for replicas that are a little behind.
	older, newer part
	before       size // what comes before them
	again        size // from here on it is to be truncated again, if it was not
}

type size struct{ entries, bytes int64 }

func (s size) plus(o size) size { return size{s.entries + o.entries, s.bytes + o.bytes} }

// reaches reports whether s has as many entries or bytes as a bound.
func (s size) reaches(bound size) bool {
	return bound.entries > 0 && s.entries >= bound.entries || bound.bytes > 0 && s.bytes >= bound.bytes
}

// where is s without what has no bound.
func (s size) where(bound size) size {
	if bound.entries == 0 {
		s.entries = 0
	}
	if bound.bytes == 0 {
		s.bytes = 0
	}
	return s
}

// of is one of n equal parts, but not nothing: that would be no bound.
func (s size) of(n int64) size { return size{max(s.entries/n, 1), max(s.bytes/n, 1)}.where(s) }

// times is n times as much.
func (s size) times(n int64) size { return size{n * s.entries, n * s.bytes} }

// part is a piece of a log, of a tailPart of tail.max or more, if it is not the newest.
type part struct {
	after uint64 // index of the entry before it
	size
}

// tailPart: one or two of so many parts of a full log are kept.
const tailPart = 10

func (t *tail) size() size { return t.before.plus(t.older.size).plus(t.newer.size) }

// add counts applied entries, of which the last has the given index.
func (t *tail) add(s size, applied uint64) {
	if t.newer.reaches(t.max.of(tailPart)) {
		t.before = t.before.plus(t.older.size)
		t.older, t.newer = t.newer, part{after: applied - uint64(s.entries)}
	}
	t.newer.size = t.newer.plus(s)
}

// full reports that the log is to be truncated up to and including the entry with the index. It does so again when as much
// has come as is kept.
func (t *tail) full() (index uint64, ok bool) {
	s := t.size()
	if t.older.after == 0 || !s.reaches(t.max) || t.again != (size{}) && !s.reaches(t.again) {
		return 0, false
	}
	t.again = s.plus(t.max.of(tailPart)).where(t.max)
	return t.older.after, true
}

// truncated notes that the log was truncated, or will be at once.
func (t *tail) truncated() { t.before, t.again = size{}, size{} }

const (
	// cutRounds bounds how often what was applied is stored before the log is truncated, until that takes less than
	// cutEnough, or hardly less than before.
	cutRounds = 3
	cutEnough = 15 * time.Millisecond
	// sendingTimes the bound is how large a log may become while a snapshot is sent, or was sent a short while ago
	// (sendingMax, sentPause): the log has to lead from there to what comes after, or all is sent again, and again.
	sendingTimes = 4
	sendingMax   = 5 * time.Minute
	sentPause    = 30 * time.Second
)

// count adds applied entries to the tail, and what the log had before this process began.
func (s *stateMachine) count(added size, before uint64) {
	r := s.replica
	if !s.counted {
		if first, err := r.logBegins(); err == nil {
			s.counted = true
			found := size{int64(max(before+1, first) - first), r.host.cfg.Raft.Log.Bytes(uint64(r.id), uint64(r.replicaID), before+1)}
			s.tail.before = s.tail.before.plus(found)
		}
	}
	s.tail.add(added, r.View().Applied)
}

// cutWhenFull truncates the log in the background, once it is as large as it may be. dragonboat has the shard wait while
// what was applied is made durable (Sync). So most of it is before.
func (s *stateMachine) cutWhenFull() {
	index, full := s.tail.full()
	r := s.replica
	switch {
	case !full, !r.mayCut(): // Sync would refuse it
		return
	case r.sends() && !s.tail.size().reaches(s.tail.max.times(sendingTimes)):
		return
	case !r.cutting.CompareAndSwap(false, true):
		return
	}
	r.host.cuts.Go(func() {
		defer r.cutting.Store(false)
		if err := r.cut(index); err != nil { // it is full still, and is tried again
			r.host.cfg.Logger.Warn("a shard's log grows because what it brought cannot be stored", "shard", r.id, "error", err)
		}
	})
}

// sends reports whether a snapshot is being sent, or was a short while ago.
func (r *Replica) sends() bool { return r.host.now().UnixNano() < r.sending.Load() }

// keepLog keeps the log for a while, for who was or is sent a snapshot.
func (r *Replica) keepLog(d time.Duration) {
	until := r.host.now().Add(d).UnixNano()
	for known := r.sending.Load(); known < until && !r.sending.CompareAndSwap(known, until); {
		known = r.sending.Load()
	}
}

// cut has the log truncated up to and including an entry. Shards do so one after the other: while one stores what it has
// by itself, nothing is gathered from all of them.
func (r *Replica) cut(index uint64) error {
	r.host.cutting.Lock()
	defer r.host.cutting.Unlock()
	sync, last := r.host.cfg.Engine.SyncAtLeisure, time.Duration(math.MaxInt64)
	for range cutRounds {
		began := time.Now()
		if err := r.machine.StoreAside(); err != nil {
			return fmt.Errorf("store what was applied: %w", err)
		}
		if err := sync(); err != nil {
			return fmt.Errorf("write out what was applied: %w", err)
		}
		took := time.Since(began)
		if took < cutEnough || took > last/2 {
			break
		}
		sync, last = r.host.cfg.Engine.Sync, took
	}
	err := r.host.entrance.cut(uint64(r.id), dragonboat.SnapshotOption{OverrideCompactionOverhead: true, CompactionIndex: index})
	if err != nil { // the replica or the node ends, or another snapshot is under way
		r.host.cfg.Logger.Debug("a log is not truncated yet", "shard", r.id, "error", err)
	}
	return nil
}

// cut is NodeHost.RequestSnapshot for a caller that does not wait, and fails with dragonboat.ErrClosed once the entrance is
// shut.
func (e *entrance) cut(shardID uint64, o dragonboat.SnapshotOption) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.shut {
		return dragonboat.ErrClosed
	}
	_, err := e.nh.RequestSnapshot(shardID, o, snapshotTimeout)
	return err
}
