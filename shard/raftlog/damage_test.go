package raftlog

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// files are those of a log, by name.
type files map[string][]byte

func filesOf(t *testing.T, fs vfs.FS) files {
	t.Helper()
	names, err := fs.List(dir)
	require.NoError(t, err)
	out := make(files)
	for _, name := range names {
		out[name] = readFile(t, fs, dir+"/"+name)
	}
	return out
}

// segments returns their names, the oldest first.
func (f files) segments() (names []string) {
	for name := range f {
		if _, ok := segmentNumber(name); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// fs is a file system with these files.
func (f files) fs(t *testing.T) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll(dir, 0o755))
	for name, data := range f {
		file, err := fs.Create(dir+"/"+name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = file.Write(slices.Clone(data)) // it may change what it is given
		require.NoError(t, err)
		require.NoError(t, file.Close())
	}
	return fs
}

// with is a file system with these files, of which one is another.
func (f files) with(t *testing.T, name string, data []byte) vfs.FS {
	t.Helper()
	f = maps.Clone(f)
	f[name] = data
	return f.fs(t)
}

// without are these files less some.
func (f files) without(names ...string) files {
	f = maps.Clone(f)
	for _, name := range names {
		delete(f, name)
	}
	return f
}

// steps does some of them, and leaves the log as it is.
func steps(t *testing.T, seed uint64, n int) (*Log, vfs.FS, *history) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	fs, h := vfs.NewMem(), newHistory()
	l := openSmall(t, fs)
	for range n {
		s := draw(rng, h.now())
		require.NoError(t, h.do(l, s), s.name)
	}
	return l, fs, h
}

// tornTail is a log that was not synced for a while: what is durable ends at an offset of its newest segment.
func tornTail(t *testing.T) (f files, newest string, durable, end int64, h *history) {
	t.Helper()
	for seed := uint64(1); ; seed++ {
		l, fs, h := steps(t, seed, 60)
		rng := rand.New(rand.NewPCG(seed, 4))
		for range 12 { // written, and not synced
			s := draw(rng, h.now())
			if s.durable || s.name == "tidy" {
				s = drawLazily(h.now())
			}
			require.NoError(t, h.do(l, s), s.name)
		}
		l.mu.Lock()
		require.NoError(t, l.write())
		newest, durable, end = segmentName(l.newest().number), l.newest().durable, l.newest().size
		l.mu.Unlock()
		f = filesOf(t, fs)
		if durable > headerLength && end > durable+500 {
			return f, newest, durable, end, h
		}
	}
}

// drawLazily is a step that is not waited for.
func drawLazily(w world) step {
	c := w[1]
	c.member += "m"
	return step{"bootstrap", w.with(1, c), false, func(l *Log) error {
		return l.SaveBootstrapInfo(1, 1, raftpb.Bootstrap{Addresses: map[uint64]string{1: c.member}})
	}}
}

// A crash leaves any part of what was not synced: cut off at any byte, zeros from there on, or something else.
func TestTornTails(t *testing.T) {
	f, newest, durable, end, h := tornTail(t)
	whole := f[newest]
	for at := durable; at <= end; at++ {
		zeros := slices.Concat(whole[:at], make([]byte, int64(len(whole))-at))
		rest := slices.Concat(whole[:at], bytes.Repeat([]byte{0xa5}, 50))
		hole := slices.Clone(whole) // a page that was not written before one that was
		clear(hole[at:min(at+64, end)])
		for _, data := range [][]byte{whole[:at:at], zeros, rest, hole} {
			fs := f.with(t, newest, data)
			l := openSmall(t, fs)
			found := history{slices.Clone(h.worlds), h.durable}
			found.find(t, l)
			// What is found counts from now on, whatever it is.
			require.NoError(t, l.Close())
			l = openSmall(t, fs)
			require.Equal(t, read(t, l), found.now())
			require.NoError(t, l.Close())
		}
	}
}

// A byte that has changed where the log is known to be durable is found, wherever it is, and the file is named (R5).
func TestDamageIsReported(t *testing.T) {
	f, newest, durable, _, _ := tornTail(t)
	names := f.segments()
	require.Greater(t, len(names), 3)
	sealed := names[len(names)/2]
	end := beforeOf(t, f, names[len(names)/2+1])
	for name, end := range map[string]int64{sealed: end, newest: durable} {
		for at := range end {
			data := slices.Clone(f[name])
			data[at] ^= 0x10
			requireCorrupt(t, f.with(t, name, data), name)
		}
	}
	requireCorrupt(t, f.with(t, sealed, f[sealed][:end-1]), sealed)
}

func beforeOf(t *testing.T, f files, name string) int64 {
	t.Helper()
	number, ok := segmentNumber(name)
	require.True(t, ok)
	before, err := decodeHeader(f[name][:headerLength], number)
	require.NoError(t, err)
	return before.size
}

func requireCorrupt(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	_, err := open(dir, Options{FS: fs, sizes: small})
	require.ErrorIs(t, err, shard.ErrCorrupt)
	require.ErrorContains(t, err, name)
}

// An entry that rots while the log is open is not given to anybody.
func TestRotIsNotRead(t *testing.T) {
	fs := vfs.NewMem()
	l := openSmall(t, fs)
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 3)...))
	file, err := fs.OpenReadWrite(dir+"/"+segmentName(1), vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	p := l.replicas[updateID(1)].places[1]
	_, err = file.WriteAt([]byte{0xff}, int64(p.offset)+entryHeadLength+1)
	require.NoError(t, err)
	got, _, err := l.IterateEntries(nil, 0, 1, 1, 1, 2, 1<<40)
	require.NoError(t, err)
	require.Len(t, got, 1)
	_, _, err = l.IterateEntries(nil, 0, 1, 1, 1, 4, 1<<40)
	require.ErrorIs(t, err, shard.ErrCorrupt)
	require.ErrorContains(t, err, segmentName(1))
}

// A directory of a version that kept the log in a Pebble store, or in segments of another format, is refused, and the operator told
// what to do. The first of them, started by mistake on a directory of this one, leaves its folder behind, which does not matter.
func TestLogOfAnEarlierVersionIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	create := func(path string) (raftio.ILogDB, error) {
		return (&Factory{FS: fs}).Create(config.NodeHostConfig{}, nil, []string{path}, nil)
	}
	earlier := func(path string) {
		db, err := pebble.Open(path, &pebble.Options{FS: fs, Logger: logged{t}})
		require.NoError(t, err)
		require.NoError(t, db.Close())
	}
	require.NoError(t, fs.MkdirAll("/old", 0o755))
	earlier("/old/log")
	_, err := create("/old")
	require.ErrorContains(t, err, "/old/log is a Raft log of an earlier version")
	require.ErrorContains(t, err, "start it with an empty data directory")
	names, err := fs.List("/old")
	require.NoError(t, err)
	require.Equal(t, []string{"log"}, names, "nothing is begun there")

	const segments = "/older/segments"
	require.NoError(t, fs.MkdirAll(segments, 0o755))
	f, err := fs.Create(segments+"/"+segmentName(1), vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(append([]byte(earlierMagic), make([]byte, 500)...))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = create("/older")
	require.ErrorContains(t, err, segments+" is a Raft log of an earlier version")
	require.NotErrorIs(t, err, shard.ErrCorrupt)

	for range 2 {
		l, err := create("/new")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		earlier("/new/log")
	}
}

// logged has Pebble say what it says to the test.
type logged struct{ *testing.T }

func (l logged) Infof(format string, args ...any) { l.Logf(format, args...) }

// What is none of the log's files is not removed, and not passed over either.
func TestOtherFilesAreRefused(t *testing.T) {
	l, fs, _ := steps(t, 6, 20)
	require.NoError(t, l.Close())
	for _, name := range []string{"1.seg", "x.seg", "000000000001.seg", "00000000-1.seg", "CURRENT"} {
		_, err := open(dir, Options{FS: filesOf(t, fs).with(t, name, []byte("x")), sizes: small})
		require.ErrorContains(t, err, name+" is none of its files")
	}
}

// A spare file, and one that was to become a segment, are no part of the log.
func TestWhatIsNoSegmentYetGoes(t *testing.T) {
	l, fs, h := steps(t, 5, 60)
	require.NoError(t, l.Close())
	f := filesOf(t, fs)
	last := f[f.segments()[0]]
	for _, name := range []string{spareName, newName} {
		fs := f.with(t, name, last)
		l := openSmall(t, fs)
		require.Equal(t, h.now(), read(t, l))
		require.NoError(t, l.Close())
		for name := range filesOf(t, fs) {
			require.True(t, strings.HasSuffix(name, segmentSuffix), name)
		}
	}
}
