package raftlog

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// life is what became of a log: the files it has, and those that it ever had, as they were last.
type life struct {
	now, ever files
	history   *history
}

// goOn does steps on a log with these files, and closes it.
func goOn(t *testing.T, l life, seed uint64, n int) life {
	t.Helper()
	fs, h, rng := l.now.fs(t), &history{worlds: slices.Clone(l.history.worlds)}, rand.New(rand.NewPCG(seed, 5))
	ever := maps.Clone(l.ever)
	log := openSmall(t, fs)
	for range n {
		s := draw(rng, h.now())
		require.NoError(t, h.do(log, s), s.name)
		maps.Copy(ever, filesOf(t, fs))
	}
	require.NoError(t, log.Close())
	now := filesOf(t, fs)
	maps.Copy(ever, now)
	return life{now, ever, h}
}

// live has a log live until four segments of it have gone and five are there.
func live(t *testing.T, seed uint64) life {
	t.Helper()
	l := life{ever: files{}, history: newHistory()}
	for i := range uint64(100) {
		l = goOn(t, l, seed+i, 40)
		if n := len(l.now.segments()); n >= 5 && len(l.ever.segments()) >= n+4 {
			return l
		}
	}
	t.Fatal("too few segments came and went")
	return life{}
}

// Whatever hands do to the files of a log, it is noticed when it is opened, and the file is named (R5); nothing is removed then.
// Each case is a row of docs/OPERATING.md.
func TestFilesThatAreNotTheirs(t *testing.T) {
	l, other := live(t, 1), live(t, 1001)
	names := l.now.segments()
	oldest, next, middle, newest := names[0], names[1], names[2], names[len(names)-1]
	ever := l.ever.segments()
	gone := ever[:len(ever)-len(names)]
	lastGone := gone[len(gone)-1]
	before := goOn(t, l, 2001, 80) // it goes on twice from here, as a copy of a directory could
	after := goOn(t, l, 3001, 80)
	forked := func(i int) string { // the i-th segment that is in both and was begun since
		n := 0
		for _, name := range after.now.segments() {
			if _, both := before.now[name]; both && name > newest {
				if n++; n > i {
					return name
				}
			}
		}
		t.Fatal("too few segments since")
		return ""
	}

	begun := make([]byte, len(l.now[middle]))
	copy(begun, l.now[middle][:headerLength])

	for name, c := range map[string]struct {
		now   files
		says  string
		names string
	}{
		"the oldest is missing":          {l.now.without(oldest), "it is missing", oldest},
		"one between is missing":         {l.now.without(middle), "it is missing", middle},
		"the newest is missing":          {l.now.without(newest), "it is missing", newest},
		"all but the newest are missing": {files{newest: l.now[newest]}, "it is missing", names[len(names)-2]},
		"all but the oldest are missing": {files{oldest: l.now[oldest]}, "it is missing", next},
		"two are swapped":                {merged(l.now, files{oldest: l.now[next], next: l.now[oldest]}), "it is segment", oldest},
		"the oldest is another node's":   {merged(l.now, files{oldest: other.ever[oldest]}), "", oldest},
		"one between is another node's":  {merged(l.now, files{middle: other.ever[middle]}), "", middle},
		"one is of a copy that went on":  {merged(after.now, files{forked(1): before.now[forked(1)]}), "", forked(1)},
		"one is what it was before":      {merged(l.now, files{middle: begun}), "it cannot be read from", middle},
		"one that had gone is back":      {merged(l.now, files{gone[0]: l.ever[gone[0]]}), "it is missing", gone[1]},
		"all that had gone are back":     {merged(l.now, l.ever), "and is there again; move it elsewhere", ever[0]},
		"the newest is empty":            {merged(l.now, files{newest: {}}), "it is empty", newest},
		"one between is empty":           {merged(l.now, files{middle: {}}), "it is empty", middle},
		"the newest is something else":   {merged(l.now, files{newest: bytes.Repeat([]byte("x"), 5000)}), "its header is damaged", newest},
		"the newest is cut":              {merged(l.now, files{newest: l.now[newest][:headerLength-1]}), "its header is damaged", newest},
		"one between is cut":             {merged(l.now, files{middle: l.now[middle][:headerLength+1]}), "bytes, not", middle},
		"something else is there":        {merged(l.now, files{"core": []byte("x")}), "is none of its files", "core"},
	} {
		t.Run(name, func(t *testing.T) {
			c.now = c.now.without(spareName)
			fs := c.now.fs(t)
			_, err := open(dir, Options{FS: fs, sizes: small})
			require.ErrorContains(t, err, dir+"/"+c.names)
			require.ErrorContains(t, err, c.says)
			require.True(t, maps.EqualFunc(c.now, filesOf(t, fs), bytes.Equal))
		})
	}

	// A crash can leave the last one that goes: it is as if it had not gone yet.
	back := openSmall(t, merged(l.now, files{lastGone: l.ever[lastGone]}).fs(t))
	require.Equal(t, l.history.now(), read(t, back))
	require.NoError(t, back.tidyUp())
	require.NoError(t, back.Close())
}

func merged(f, with files) files {
	f = maps.Clone(f)
	maps.Copy(f, with)
	return f
}

// A segment in the place of another one of its number and length is noticed by what is in it.
func TestTwinsAreToldApart(t *testing.T) {
	twin := func(vote uint64) files {
		fs := vfs.NewMem()
		for term := range uint64(3) {
			l := openSmall(t, fs)
			save(t, l, update(1, 1, raftpb.State{Term: term + 1, Vote: vote}))
			require.NoError(t, l.Close())
		}
		return filesOf(t, fs)
	}
	a, b := twin(1), twin(2)
	names := a.segments()
	require.Equal(t, names, b.segments())
	for _, name := range names[:len(names)-1] {
		require.Len(t, a[name], len(b[name]))
		_, err := open(dir, Options{FS: a.with(t, name, b[name]), sizes: small})
		require.ErrorIs(t, err, shard.ErrCorrupt)
		require.ErrorContains(t, err, "one of them is of another log, or of another time")
	}
}

// A crash can come after a segment was begun, and before it was noted in the one before. The next start notes it, so that the loss of
// both is noticed (R5).
func TestStartNotesWhatFollows(t *testing.T) {
	l := live(t, 1)
	names := l.now.segments()
	before, newest := names[len(names)-2], names[len(names)-1]
	data := slices.Clone(l.now[before])
	clear(data[beforeOf(t, l.now, newest):])
	fs := merged(l.now, files{before: data, newest: l.now[newest][:headerLength]}).fs(t)
	require.NoError(t, openSmall(t, fs).Close())
	f := filesOf(t, fs)
	lost := f.segments()[len(names)-1:]
	require.Len(t, lost, 2)
	requireCorrupt(t, f.without(lost...).fs(t), newest)
}

// Segments that are whole and yet do not add up to a log are not taken for one (R3).
func TestHolesAreReported(t *testing.T) {
	fs := vfs.NewMem()
	l := openSmall(t, fs)
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 3)...))
	_, used := l.useSome(updateID(1), l.segments[0])
	frame, _, err := l.segments[0].readEntry(l.folder, used[0].place, nil)
	require.NoError(t, err)
	require.NoError(t, l.releaseAll(used))
	_, err = l.append(func() error {
		l.addMoved(updateID(1), 6, [][]byte{frame}) // it never was there
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = open(dir, Options{FS: fs, sizes: small})
	require.ErrorIs(t, err, shard.ErrCorrupt)
	require.ErrorContains(t, err, "entry 4 of shard 1 is missing")
}

// What follows the end of a segment is nobody's concern once there is a next one.
func TestWhatIsBehindASegmentsEndDoesNotMatter(t *testing.T) {
	l := live(t, 1)
	names := l.now.segments()
	name := names[2]
	end := beforeOf(t, l.now, names[3])
	for at := end; at < int64(len(l.now[name])); at++ {
		data := slices.Clone(l.now[name])
		data[at] ^= 0xff
		log := openSmall(t, l.now.with(t, name, data))
		require.Equal(t, l.history.now(), read(t, log))
		require.NoError(t, log.Close())
	}
}

// A directory that cannot be read or written to, and a full disk, stop the start with an error that tells where and what, and
// do no harm.
func TestDirectoryThatCannotBeUsed(t *testing.T) {
	l := live(t, 1)
	for _, reason := range []error{syscall.EACCES, syscall.EROFS, syscall.ENOSPC, syscall.EIO} {
		for n := 0; ; n++ {
			fs, calls := l.now.fs(t), 0
			failing := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpFileClose {
					return nil
				}
				if calls++; calls > n {
					return fmt.Errorf("%s: %w", op.Path, reason)
				}
				return nil
			}))
			log, err := open(dir, Options{FS: failing, sizes: small})
			if calls <= n {
				require.NoError(t, err)
				require.NoError(t, log.Close())
				require.Greater(t, n, 20)
				break
			}
			require.ErrorIs(t, err, reason)
			require.ErrorContains(t, err, "open the Raft log in "+dir)
			require.NotErrorIs(t, err, shard.ErrCorrupt)
			log = openSmall(t, fs)
			require.Equal(t, l.history.now(), read(t, log))
			require.NoError(t, log.Close())
		}
	}
}
