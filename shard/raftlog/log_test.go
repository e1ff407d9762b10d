package raftlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

const dir = "/log"

// small is so that all that happens to segments happens often.
var small = sizes{segment: 4 << 10, least: 512, slack: 8 << 10, ahead: aheadPage}

// openSmall opens a log whose old segments go when the test says so.
func openSmall(t *testing.T, fs vfs.FS) *Log {
	t.Helper()
	l, err := open(dir, Options{FS: fs, sizes: small})
	require.NoError(t, err)
	return l
}

func entries(term, from, to uint64) []raftpb.Entry {
	var out []raftpb.Entry
	for i := from; i <= to; i++ {
		// Every third is short.
		out = append(out, raftpb.Entry{Index: i, Term: term, Cmd: fmt.Appendf(nil, "%d/%0*d", term, i%3*256, i)})
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
	bytes := 0
	for _, e := range got {
		bytes += entryHeadLength + e.Size()
	}
	id := raftio.GetNodeInfo(shard, replica)
	require.Equal(t, int64(bytes), l.bytes(id, s.FirstIndex+s.EntryCount)-l.bytes(id, s.FirstIndex))
	return s.State, got
}

func TestNothingIsKnownOfAnUnknownReplica(t *testing.T) {
	l := openSmall(t, vfs.NewMem())
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
	l := openSmall(t, vfs.NewMem())
	defer l.Close()
	save(t, l, update(1, 1, raftpb.State{Term: 1, Vote: 1}, entries(1, 1, 10)...))
	save(t, l, update(1, 1, raftpb.State{Term: 2, Vote: 1}, entries(2, 4, 6)...))
	state, got := all(t, l, 1, 1, 0)
	require.Equal(t, raftpb.State{Term: 2, Vote: 1}, state)
	require.Equal(t, append(entries(1, 1, 3), entries(2, 4, 6)...), got)
}

func TestReceivedSnapshotReplacesTheLog(t *testing.T) {
	l := openSmall(t, vfs.NewMem())
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
	l := openSmall(t, vfs.NewMem())
	defer l.Close()
	for _, index := range []uint64{7, 9, 8} {
		require.NoError(t, l.SaveSnapshots([]raftpb.Update{{ShardID: 1, ReplicaID: 2, Snapshot: raftpb.Snapshot{Index: index}}}))
	}
	ss, err := l.GetSnapshot(1, 2)
	require.NoError(t, err)
	require.EqualValues(t, 9, ss.Index)
}

func TestReadingIsBounded(t *testing.T) {
	l := openSmall(t, vfs.NewMem())
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
	l := openSmall(t, vfs.NewMem())
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
			l := openSmall(t, fs)
			require.NoError(t, l.Sync())
			require.NoError(t, l.SaveBootstrapInfo(1, 1, members))
			c.then(l)
			crashed := fs.CrashClone(vfs.CrashCloneCfg{})
			require.NoError(t, l.Close())
			l = openSmall(t, crashed)
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

// Each thing that Raft promises others is durable by itself when it has been saved (R1), whatever it comes with; a commit index alone
// need not be.
func TestPromisesAreDurable(t *testing.T) {
	before := raftpb.State{Term: 2, Commit: 1}
	for name, c := range map[string]struct {
		update raftpb.Update
		kept   bool
	}{
		"a term":                {update(1, 1, raftpb.State{Term: 3, Commit: 1}), true},
		"a vote":                {update(1, 1, raftpb.State{Term: 2, Vote: 1, Commit: 1}), true},
		"entries":               {update(1, 1, raftpb.State{}, entries(2, 4, 5)...), true},
		"entries and a state":   {update(1, 1, raftpb.State{Term: 2, Commit: 3}, entries(2, 4, 5)...), true},
		"a snapshot":            {raftpb.Update{ShardID: 1, ReplicaID: 1, Snapshot: raftpb.Snapshot{Index: 9, Term: 2}}, true},
		"a commit index alone":  {update(1, 1, raftpb.State{Term: 2, Commit: 3}), false},
		"nothing but a message": {update(1, 1, raftpb.State{}), false},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			l := openSmall(t, fs)
			save(t, l, update(1, 1, before, entries(2, 1, 3)...))
			was := read(t, l)
			save(t, l, c.update)
			want := read(t, l)
			crashed := openSmall(t, fs.CrashClone(vfs.CrashCloneCfg{}))
			if !c.kept {
				want = was
			}
			require.Equal(t, want, read(t, crashed))
			require.NoError(t, crashed.Close())
			require.NoError(t, l.Close())
		})
	}
}

// What is saved while a sync runs is not durable by that one, nor is what only was written (R1).
func TestSyncIsOfWhatWasBeforeIt(t *testing.T) {
	fs := vfs.NewCrashableMem()
	var during func()
	l, err := open(dir, Options{sizes: small, FS: errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && during != nil {
			do := during
			during = nil
			do()
		}
		return nil
	}))})
	require.NoError(t, err)
	members := raftpb.Bootstrap{Addresses: map[uint64]string{1: "n1:1"}}
	requireDurable := func(shard uint64) {
		t.Helper()
		require.NoError(t, l.Sync())
		crashed := openSmall(t, fs.CrashClone(vfs.CrashCloneCfg{}))
		got, err := crashed.GetBootstrapInfo(shard, 1)
		require.NoError(t, err)
		require.Equal(t, members, got)
		require.NoError(t, crashed.Close())
	}
	during = func() { require.NoError(t, l.SaveBootstrapInfo(2, 1, members)) } // not waited for
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 3)...))
	requireDurable(2)
	require.NoError(t, l.SaveBootstrapInfo(3, 1, members))
	all(t, l, 1, 1, 0) // what is read is written first
	requireDurable(3)
	require.NoError(t, l.Close())
}

// Entries that cannot follow those that are there are a mistake of who saves them: nothing of the call counts, and nothing is
// taken any more (R3, R7).
func TestEntriesThatCannotBeAreRefused(t *testing.T) {
	for says, wrong := range map[string][]raftpb.Entry{
		"entry 5 would be behind a gap": entries(1, 5, 6),
		"entry 6 follows entry 4":       append(entries(1, 4, 4), entries(1, 6, 6)...),
	} {
		fs := vfs.NewMem()
		l := openSmall(t, fs)
		save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 3)...))
		err := l.SaveRaftState([]raftpb.Update{update(2, 1, raftpb.State{Term: 7}), update(1, 1, raftpb.State{Term: 2}, wrong...)}, 1)
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, l.SaveRaftState([]raftpb.Update{update(1, 1, raftpb.State{Term: 2})}, 1), says)
		require.ErrorContains(t, l.Close(), says)
		l = openSmall(t, fs)
		state, got := all(t, l, 1, 1, 0)
		require.Equal(t, raftpb.State{Term: 1}, state)
		require.Equal(t, entries(1, 1, 3), got)
		_, err = l.ReadRaftState(2, 1, 0)
		require.ErrorIs(t, err, raftio.ErrNoSavedLog)
		require.NoError(t, l.Close())
	}
}
