package raftlog

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

func updateID(shard uint64) raftio.NodeInfo { return raftio.GetNodeInfo(shard, 1) }

func (l *Log) held() (n int, bytes int64) {
	l.mu.Lock()
	n = len(l.segments)
	l.mu.Unlock()
	return n, l.size()
}

// A thousand replicas, which have written something once, keep nothing of what a busy one has written and let go.
// They are the same after that, and after a start.
func TestIdleReplicasDoNotKeepTheLog(t *testing.T) {
	const idle = 1024
	fs := vfs.NewMem()
	o := Options{FS: fs, sizes: sizes{segment: 64 << 10, least: 4 << 10, slack: 256 << 10, ahead: aheadPage}}
	l, err := open(dir, o)
	require.NoError(t, err)
	state := raftpb.State{Term: 3, Vote: 1, Commit: 1}
	for id := uint64(1); id <= idle; id++ {
		require.NoError(t, l.SaveBootstrapInfo(id, 1, raftpb.Bootstrap{Join: true}))
		save(t, l, update(id, 1, state, entries(3, 1, 2)...))
	}
	_, quiet := l.held()
	busy := func(from, to uint64) {
		for i := from; i < to; i++ {
			save(t, l, update(5000, 1, raftpb.State{Term: 1, Commit: i}, entries(1, i, i)...))
			require.NoError(t, l.RemoveEntriesTo(5000, 1, i-1))
			if i%100 == 0 {
				require.NoError(t, l.tidyUp())
			}
		}
	}
	check := func() {
		for id := uint64(1); id <= idle; id++ {
			b, err := l.GetBootstrapInfo(id, 1)
			require.NoError(t, err)
			require.True(t, b.Join)
			s, got := all(t, l, id, 1, 0)
			require.Equal(t, state, s)
			require.Equal(t, entries(3, 1, 2), got)
		}
	}
	busy(1, 8000)
	check()
	_, bytes := l.held()
	require.Less(t, bytes, 3*quiet+o.sizes.slack+o.sizes.segment)
	require.Greater(t, l.newest().number, uint32(30), "so many segments there were")
	require.NoError(t, l.Close())
	l, err = open(dir, o)
	require.NoError(t, err)
	check()
	busy(8000, 16000)
	check()
	require.NoError(t, l.Close())
}

// The space of what was removed comes back without anything else being written, as one segment at least.
func TestRemovedEntriesLeaveTheDisk(t *testing.T) {
	l := openSmall(t, vfs.NewMem())
	for index := uint64(1); index <= 1000; index += 10 {
		save(t, l, update(1, 1, raftpb.State{Term: 1, Commit: index}, entries(1, index, index+9)...))
	}
	n, bytes := l.held()
	require.Greater(t, n, 20)
	for range 3 { // all counts: nothing is moved to and fro
		require.NoError(t, l.tidyUp())
	}
	after, same := l.held()
	require.Equal(t, n, after)
	require.Equal(t, bytes, same)
	require.NoError(t, l.RemoveEntriesTo(1, 1, 1000))
	require.NoError(t, l.tidyUp())
	n, _ = l.held()
	require.LessOrEqual(t, n, 2, "the last state may be in the one before the newest")
	require.NotNil(t, l.spare, "the next segment need not grow")
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1001, 1040)...))
	_, got := all(t, l, 1, 1, 0)
	require.Equal(t, entries(1, 1001, 1040), got)
	require.NoError(t, l.Close())
}

// Starts, each of which begins a segment, do not add up.
func TestStartsDoNotAddUp(t *testing.T) {
	fs := vfs.NewMem()
	l := openSmall(t, fs)
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 3)...))
	for i := uint64(4); i < 100; i++ {
		save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, i, i)...))
		require.NoError(t, l.tidyUp())
		require.NoError(t, l.Close())
		l = openSmall(t, fs)
	}
	n, bytes := l.held()
	require.Less(t, int64(n), (3*bytes+small.slack)/small.least+2)
	_, got := all(t, l, 1, 1, 0)
	require.Equal(t, entries(1, 1, 99), got)
	require.NoError(t, l.Close())
}

// What is moved was read before; of that only what is still the log's is appended.
func TestEntriesGoWhileTheyAreMoved(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(l *Log)
		want      []raftpb.Entry
	}{
		"nothing":  {func(*Log) {}, entries(1, 1, 10)},
		"removed":  {func(l *Log) { require.NoError(t, l.RemoveEntriesTo(1, 1, 4)) }, entries(1, 5, 10)},
		"replaced": {func(l *Log) { save(t, l, update(1, 1, raftpb.State{}, entries(2, 7, 8)...)) }, append(entries(1, 1, 6), entries(2, 7, 8)...)},
		"both": {func(l *Log) {
			require.NoError(t, l.RemoveEntriesTo(1, 1, 4))
			save(t, l, update(1, 1, raftpb.State{}, entries(2, 7, 8)...))
		}, append(entries(1, 5, 6), entries(2, 7, 8)...)},
		"all":       {func(l *Log) { require.NoError(t, l.RemoveEntriesTo(1, 1, 10)) }, nil},
		"a replica": {func(l *Log) { require.NoError(t, l.RemoveNodeData(1, 1)) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			l := openSmall(t, fs)
			save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 10)...))
			require.NoError(t, l.Close())
			l = openSmall(t, fs)
			id, s := updateID(1), l.segments[0]
			index, used := l.useSome(id, s)
			require.Len(t, used, 10)
			var frames [][]byte
			for _, u := range used {
				frame, _, err := s.readEntry(l.folder, u.place, nil)
				require.NoError(t, err)
				frames = append(frames, frame)
			}
			require.NoError(t, l.releaseAll(used))
			c.meanwhile(l)
			require.NoError(t, l.appendMoved(id, index, used, frames))
			require.NoError(t, l.moveRecords(id, s))
			require.Zero(t, s.live)
			require.NoError(t, l.tidyUp())
			for range 2 {
				_, got := all(t, l, 1, 1, 0)
				require.Equal(t, c.want, got)
				require.NoError(t, l.Close())
				l = openSmall(t, fs)
			}
			require.NoError(t, l.Close())
		})
	}
}

// A segment goes while somebody reads of it: its file does not become another segment meanwhile, and is closed only then.
func TestReadersKeepTheirFiles(t *testing.T) {
	l := openSmall(t, vfs.NewMem())
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 20)...))
	used, err := l.use(updateID(1), 1, 41)
	require.NoError(t, err)
	require.Len(t, used, 20)
	save(t, l, update(1, 1, raftpb.State{Term: 2}, entries(2, 1, 20)...)) // in place of them
	require.NoError(t, l.tidyUp())
	require.Equal(t, uint32(2), l.segments[0].number)
	require.Nil(t, l.spare)
	for range 5 { // segments that could be made of it
		save(t, l, update(1, 1, raftpb.State{Term: 2}, entries(2, 1, 20)...))
	}
	for i, u := range used {
		_, message, err := u.segment.readEntry(l.folder, u.place, nil)
		require.NoError(t, err)
		var e raftpb.Entry
		require.NoError(t, e.Unmarshal(message))
		require.Equal(t, entries(1, 1, 20)[i], e)
	}
	require.NoError(t, l.releaseAll(used))
	require.Panics(t, func() { _, _ = used[0].segment.file.ReadAt(make([]byte, 1), 0) }, "as this file system does when a file is closed")
	require.NoError(t, l.Close())
}

// Entries are read, moved and written at once; what is read is always whole and right.
func TestReadingWhileSegmentsGo(t *testing.T) {
	const replicas, count = 4, 400
	l, err := Open(dir, Options{FS: vfs.NewMem(), sizes: sizes{segment: 8 << 10, least: 512, slack: 4 << 10, ahead: aheadPage}})
	require.NoError(t, err)
	save(t, l, update(100, 1, raftpb.State{Term: 1}, entries(1, 1, 20)...)) // these stay, and are moved
	var work, readers sync.WaitGroup
	written := make(chan struct{})
	for id := uint64(1); id <= replicas; id++ {
		work.Go(func() {
			for i := uint64(1); i <= count; i++ {
				if save(t, l, update(id, 1, raftpb.State{Term: 1}, entries(1, i, i)...)); i > 30 {
					require.NoError(t, l.RemoveEntriesTo(id, 1, i-30))
				}
			}
		})
	}
	for _, id := range []uint64{1, 2, 100} {
		readers.Go(func() {
			for {
				select {
				case <-written:
					return
				default:
				}
				s, err := l.ReadRaftState(id, 1, 0)
				if err == raftio.ErrNoSavedLog || s.EntryCount == 0 {
					continue
				}
				got, _, err := l.IterateEntries(nil, 0, id, 1, s.FirstIndex, s.FirstIndex+s.EntryCount, 1<<40)
				require.NoError(t, err)
				if len(got) > 0 {
					require.Equal(t, entries(1, got[0].Index, got[len(got)-1].Index), got)
				}
			}
		})
	}
	work.Wait()
	close(written)
	readers.Wait()
	_, got := all(t, l, 100, 1, 0)
	require.Equal(t, entries(1, 1, 20), got)
	require.NoError(t, l.Close())
}

// An entry that has rotted cannot be moved: then nothing goes any more, and the operator hears of it once.
func TestRotStopsTidying(t *testing.T) {
	fs, reg := vfs.NewMem(), prometheus.NewPedanticRegistry()
	var logged bytes.Buffer
	l, err := open(dir, Options{FS: fs, sizes: small, Registerer: reg, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	require.NoError(t, err)
	stuck := func(want float64) {
		t.Helper()
		families, err := reg.Gather()
		require.NoError(t, err)
		i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "flotilla_raftlog_stuck" })
		require.Equal(t, want, families[i].Metric[0].GetGauge().GetValue())
	}
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 3)...)) // these stay, and are to be moved
	for i := uint64(1); i <= 200; i++ {
		save(t, l, update(2, 1, raftpb.State{Term: 1}, entries(1, i, i)...))
		require.NoError(t, l.RemoveEntriesTo(2, 1, i-1))
	}
	file, err := fs.OpenReadWrite(dir+"/"+segmentName(1), vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	p := l.replicas[updateID(1)].places[1]
	_, err = file.WriteAt([]byte{0xff}, int64(p.offset)+entryHeadLength+1)
	require.NoError(t, err)
	n, _ := l.held()
	stuck(0)
	l.wakeTidy()
	l.keepTidy() // it comes back, though the log is not closed
	stuck(1)
	require.Equal(t, 1, strings.Count(logged.String(), "level=ERROR"))
	require.Contains(t, logged.String(), "old files are not removed any more")
	require.Contains(t, logged.String(), segmentName(1))
	after, _ := l.held()
	require.GreaterOrEqual(t, after, n)
	save(t, l, update(2, 1, raftpb.State{Term: 1}, entries(1, 201, 201)...)) // it takes writes all the same
	require.NoError(t, l.Close())
	requireCorrupt(t, fs, segmentName(1))
}
