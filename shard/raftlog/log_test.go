package raftlog

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

const dir = "/log"

func open(t *testing.T, fs vfs.FS) *Log {
	t.Helper()
	l, err := Open(dir, Options{FS: fs, tune: func(o *pebble.Options) {
		o.MemTableSize = 16 << 10 // flushes happen
	}})
	require.NoError(t, err)
	return l
}

func entries(term, from, to uint64) []raftpb.Entry {
	var out []raftpb.Entry
	for i := from; i <= to; i++ {
		// Every third is short.
		out = append(out, raftpb.Entry{Index: i, Term: term, Cmd: fmt.Appendf(nil, "%d/%0*d", term, i%3*apartBytesMin, i)})
	}
	return out
}

func save(t *testing.T, l *Log, updates ...raftpb.Update) {
	t.Helper()
	require.NoError(t, l.SaveRaftState(updates, 1))
}

func update(shard, replica uint64, state raftpb.State, saved ...raftpb.Entry) raftpb.Update {
	return raftpb.Update{ShardID: shard, ReplicaID: replica, State: state, EntriesToSave: saved}
}

// all reads a replica's log behind a snapshot, as dragonboat does at a start.
func all(t *testing.T, l *Log, shard, replica, snapshot uint64) (raftpb.State, []raftpb.Entry) {
	t.Helper()
	s, err := l.ReadRaftState(shard, replica, snapshot)
	if err == raftio.ErrNoSavedLog {
		return raftpb.State{}, nil
	}
	require.NoError(t, err)
	if s.EntryCount == 0 {
		require.Equal(t, snapshot, s.FirstIndex)
		return s.State, nil
	}
	got, _, err := l.IterateEntries(nil, 0, shard, replica, s.FirstIndex, s.FirstIndex+s.EntryCount, 1<<40)
	require.NoError(t, err)
	require.Len(t, got, int(s.EntryCount))
	return s.State, got
}

func TestNothingIsKnownOfAnUnknownReplica(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer l.Close()
	_, err := l.ReadRaftState(1, 1, 0)
	require.ErrorIs(t, err, raftio.ErrNoSavedLog)
	_, err = l.GetBootstrapInfo(1, 1)
	require.ErrorIs(t, err, raftio.ErrNoBootstrapInfo)
	ss, err := l.GetSnapshot(1, 1)
	require.NoError(t, err)
	require.True(t, raftpb.IsEmptySnapshot(ss))
	replicas, err := l.ListNodeInfo()
	require.NoError(t, err)
	require.Empty(t, replicas)
}

func TestConflictingEntriesGo(t *testing.T) { // R3
	l := open(t, vfs.NewMem())
	defer l.Close()
	save(t, l, update(1, 1, raftpb.State{Term: 1, Vote: 1}, entries(1, 1, 10)...))
	save(t, l, update(1, 1, raftpb.State{Term: 2, Vote: 1}, entries(2, 4, 6)...))
	state, got := all(t, l, 1, 1, 0)
	require.Equal(t, raftpb.State{Term: 2, Vote: 1}, state)
	require.Equal(t, append(entries(1, 1, 3), entries(2, 4, 6)...), got)
}

func TestReceivedSnapshotReplacesTheLog(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer l.Close()
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 10)...))
	received := update(1, 1, raftpb.State{Term: 3, Commit: 50})
	received.Snapshot = raftpb.Snapshot{Index: 50, Term: 3, ShardID: 1}
	save(t, l, received)
	save(t, l, update(1, 1, raftpb.State{}, entries(3, 51, 53)...))
	save(t, l, received) // told again: nothing happens to what came after it
	_, got := all(t, l, 1, 1, 50)
	require.Equal(t, entries(3, 51, 53), got)
	ss, err := l.GetSnapshot(1, 1)
	require.NoError(t, err)
	require.EqualValues(t, 50, ss.Index)
}

func TestOlderSnapshotRecordIsLeftOut(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer l.Close()
	for _, index := range []uint64{7, 9, 8} {
		require.NoError(t, l.SaveSnapshots([]raftpb.Update{{ShardID: 1, ReplicaID: 2, Snapshot: raftpb.Snapshot{Index: index}}}))
	}
	ss, err := l.GetSnapshot(1, 2)
	require.NoError(t, err)
	require.EqualValues(t, 9, ss.Index)
}

func TestReadingIsBounded(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer l.Close()
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 100)...))
	var four uint64
	for _, e := range entries(1, 1, 4) {
		four += uint64(e.SizeUpperLimit())
	}
	got, bytes, err := l.IterateEntries(nil, 0, 1, 1, 1, 101, four-1)
	require.NoError(t, err)
	require.Equal(t, four, bytes, "the caller tells by it that there is more")
	require.Len(t, got, 4)
	require.NoError(t, l.RemoveEntriesTo(1, 1, 10))
	got, _, err = l.IterateEntries(nil, 0, 1, 1, 8, 20, 1<<40)
	require.NoError(t, err)
	require.Empty(t, got, "never a list with a hole at its start")
}

func TestReplicasAreApart(t *testing.T) { // R4
	l := open(t, vfs.NewMem())
	defer l.Close()
	for _, r := range [][2]uint64{{1, 1}, {1, 2}, {2, 1}, {256, 1}} {
		require.NoError(t, l.SaveBootstrapInfo(r[0], r[1], raftpb.Bootstrap{Join: r[1] == 2}))
		save(t, l, update(r[0], r[1], raftpb.State{Term: r[0]}, entries(r[0], 1, 5)...))
	}
	require.NoError(t, l.RemoveNodeData(1, 1))
	require.NoError(t, l.RemoveEntriesTo(2, 1, 3))
	replicas, err := l.ListNodeInfo()
	require.NoError(t, err)
	require.Equal(t, []raftio.NodeInfo{{ShardID: 1, ReplicaID: 2}, {ShardID: 2, ReplicaID: 1}, {ShardID: 256, ReplicaID: 1}}, replicas)
	b, err := l.GetBootstrapInfo(1, 2)
	require.NoError(t, err)
	require.True(t, b.Join)
	_, got := all(t, l, 1, 1, 0)
	require.Empty(t, got)
	_, got = all(t, l, 1, 2, 0)
	require.Equal(t, entries(1, 1, 5), got)
	_, got = all(t, l, 2, 1, 3)
	require.Equal(t, entries(2, 4, 5), got)
	_, got = all(t, l, 256, 1, 0)
	require.Equal(t, entries(256, 1, 5), got)
}

// Long entries are written once besides the write-ahead log, and leave the disk when they
// are removed.
func TestEntriesAreNotRewritten(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer l.Close()
	for index := uint64(1); index <= 1000; index += 10 {
		save(t, l, update(1, 1, raftpb.State{Term: 1, Commit: index}, entries(1, index, index+9)...))
	}
	require.NoError(t, l.db.Flush())
	require.NoError(t, l.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false))
	levels := l.db.Metrics().Total()
	require.NotZero(t, levels.TableBytesCompacted)
	require.NotZero(t, levels.BlobBytesFlushed)
	require.Equal(t, levels.BlobBytesFlushed, levels.BlobBytesCompacted, "Pebble counts flushes in both")
	_, got := all(t, l, 1, 1, 0)
	require.Equal(t, entries(1, 1, 1000), got)

	require.NoError(t, l.RemoveEntriesTo(1, 1, 1000))
	require.NoError(t, l.db.Flush())
	require.NoError(t, l.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false))
	require.Zero(t, l.db.Metrics().BlobFiles.LiveCount)
}

var seed = flag.Int64("seed", 0, "seed of the crash test; 0 tries several")

// promised is what a replica's log must hold after a crash.
type promised struct {
	term, vote uint64
	entries    []raftpb.Entry
	snapshot   uint64
}

// TestCrash saves at random, loses what was not synced, and requires all that Raft was
// promised (R1), in an order that Raft can load (R2).
func TestCrash(t *testing.T) {
	seeds := []int64{1, 2, 3, 4, 5, 6, 7, 8}
	if *seed != 0 {
		seeds = []int64{*seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("again: go test ./shard/raftlog -run TestCrash -seed=%d", seed)
			crash(t, rand.New(rand.NewPCG(uint64(seed), 1)))
		})
	}
}

func crash(t *testing.T, rng *rand.Rand) {
	fs := vfs.NewCrashableMem()
	require.NoError(t, fs.MkdirAll(dir, 0o755))
	l := open(t, fs)
	want := map[uint64]*promised{1: {}, 2: {}, 3: {}}
	states := map[uint64]*raftpb.State{1: {Term: 1}, 2: {Term: 1}, 3: {Term: 1}}
	for range 200 {
		switch rng.IntN(20) {
		case 0: // everything that was not synced may be lost
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			require.NoError(t, l.Close())
			fs = clone
			l = open(t, fs)
			for id, w := range want {
				requirePromised(t, l, id, w)
				*states[id] = raftpb.State{Term: max(1, w.term), Vote: w.vote, Commit: commit(t, l, id)}
			}
		case 1: // a snapshot of what is committed, and the log before it goes
			id := 1 + rng.Uint64N(3)
			if at := states[id].Commit; at > want[id].snapshot {
				require.NoError(t, l.SaveSnapshots([]raftpb.Update{{ShardID: id, ReplicaID: 1, Snapshot: raftpb.Snapshot{Index: at, Term: 1}}}))
				want[id].snapshot = at
				require.NoError(t, l.RemoveEntriesTo(id, 1, at))
			}
		default:
			var updates []raftpb.Update
			for id := uint64(1); id <= 3; id++ {
				if rng.IntN(2) == 0 {
					updates = append(updates, next(rng, id, states[id], want[id]))
				}
			}
			save(t, l, updates...)
		}
	}
	for id, w := range want {
		requirePromised(t, l, id, w)
	}
	require.NoError(t, l.Close())
}

// next is a plausible update of one replica, and what it promises.
func next(rng *rand.Rand, id uint64, s *raftpb.State, w *promised) raftpb.Update {
	last := w.snapshot
	if n := len(w.entries); n > 0 {
		last = max(last, w.entries[n-1].Index)
	}
	u := raftpb.Update{ShardID: id, ReplicaID: 1}
	switch rng.IntN(4) {
	case 0: // a commit index alone: not promised
		if s.Commit < last {
			s.Commit += 1 + rng.Uint64N(last-s.Commit)
		}
	case 1:
		s.Term, s.Vote = s.Term+1, 1+rng.Uint64N(3)
	default: // entries, sometimes in place of some that were not committed
		from := last + 1
		if last > s.Commit && rng.IntN(4) == 0 {
			from = s.Commit + 1 + rng.Uint64N(last-s.Commit)
		}
		u.EntriesToSave = entries(s.Term, from, from+rng.Uint64N(5))
		keep := w.entries[:0:0]
		for _, e := range w.entries {
			if e.Index < from {
				keep = append(keep, e)
			}
		}
		w.entries = append(keep, u.EntriesToSave...)
	}
	u.State = *s
	w.term, w.vote = s.Term, s.Vote
	return u
}

func commit(t *testing.T, l *Log, id uint64) uint64 {
	s, err := l.ReadRaftState(id, 1, 0)
	if err == raftio.ErrNoSavedLog {
		return 0
	}
	require.NoError(t, err)
	return s.State.Commit
}

func requirePromised(t *testing.T, l *Log, id uint64, w *promised) {
	t.Helper()
	ss, err := l.GetSnapshot(id, 1)
	require.NoError(t, err)
	require.Equal(t, w.snapshot, ss.Index)
	state, got := all(t, l, id, 1, ss.Index)
	require.Equal(t, w.term, state.Term)
	require.Equal(t, w.vote, state.Vote)
	var want []raftpb.Entry
	for _, e := range w.entries {
		if e.Index > ss.Index {
			want = append(want, e)
		}
	}
	for len(got) > 0 && got[0].Index <= ss.Index {
		got = got[1:] // removed without waiting
	}
	require.Equal(t, want, got)
	// What dragonboat demands of a state that it loads.
	require.GreaterOrEqual(t, state.Commit, ss.Index)
}

// The keys outlive the process: docs/FORMATS.md draws them.
func TestKeyBytes(t *testing.T) {
	require.Equal(t, "0000000000000102"+"0000000000000003"+"02", fmt.Sprintf("%x", recordKey(0x102, 3, kindState)))
	require.Equal(t, "0000000000000102"+"0000000000000003"+"04"+"0000000000000405", fmt.Sprintf("%x", entryKey(0x102, 3, 0x405)))
	require.Equal(t, []byte{1, 2, 3, 4}, []byte{kindBootstrap, kindState, kindSnapshot, kindEntry})
}

// Who wants to know how slow the disk is hears of what Raft waits for, and of nothing else.
func TestSyncsAreTold(t *testing.T) {
	syncs := 0
	l, err := Open(dir, Options{FS: vfs.NewMem(), Synced: func(took time.Duration) {
		syncs++
		require.GreaterOrEqual(t, took, time.Duration(0))
	}})
	require.NoError(t, err)
	save(t, l, update(1, 1, raftpb.State{Term: 1, Vote: 1, Commit: 1}, entries(1, 1, 3)...))
	require.Equal(t, 1, syncs)
	save(t, l, update(1, 1, raftpb.State{Term: 1, Vote: 1, Commit: 3})) // not synced
	require.Equal(t, 1, syncs)
	require.NoError(t, l.Close())
}

// A group's first members may be lost in a crash as long as nobody has synced the log, but
// not with anything of the replica left (R1, R2).
func TestFirstMembersAreDurableBeforeAnyPromise(t *testing.T) {
	members := raftpb.Bootstrap{Addresses: map[uint64]string{1: "n1:1"}}
	for name, c := range map[string]struct {
		then func(l *Log)
		kept bool
	}{
		"nothing":    {func(*Log) {}, false},
		"a sync":     {func(l *Log) { require.NoError(t, l.Sync()) }, true},
		"a vote":     {func(l *Log) { save(t, l, update(1, 1, raftpb.State{Term: 1, Vote: 1})) }, true},
		"some other": {func(l *Log) { save(t, l, update(2, 1, raftpb.State{Term: 1, Vote: 1})) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			require.NoError(t, fs.MkdirAll(dir, 0o755))
			l := open(t, fs)
			require.NoError(t, l.Sync())
			require.NoError(t, l.SaveBootstrapInfo(1, 1, members))
			c.then(l)
			crashed := fs.CrashClone(vfs.CrashCloneCfg{})
			require.NoError(t, l.Close())
			l = open(t, crashed)
			defer l.Close()
			got, err := l.GetBootstrapInfo(1, 1)
			if !c.kept {
				require.ErrorIs(t, err, raftio.ErrNoBootstrapInfo)
				return
			}
			require.NoError(t, err)
			require.Equal(t, members, got)
		})
	}
}
