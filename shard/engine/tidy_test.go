package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// littered is a store of many versions, of which some are removed.
type littered struct {
	*Engine
	t    *testing.T
	fs   vfs.FS
	rng  *rand.Rand
	next shard.Revision
	live map[string]string // key@revision -> value
	// alone: from the next opening on only Tidy compacts.
	alone bool
}

const litteredKeys = 300

func newLittered(t *testing.T) *littered {
	l := &littered{t: t, fs: vfs.NewMem(), rng: rand.New(rand.NewPCG(*seed, 1)), next: 2, live: map[string]string{}}
	l.open()
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func (l *littered) open() {
	l.t.Helper()
	e, err := Open(storeDir, Options{FS: l.fs, CacheBytes: 1 << 20, tune: func(o *pebble.Options) {
		o.MemTableSize = 64 << 10
		o.LBaseMaxBytes, o.L0CompactionThreshold = 128<<10, 8 // several levels
		o.DisableAutomaticCompactions = l.alone
		for i := range o.TargetFileSizes {
			o.TargetFileSizes[i] = 16 << 10
		}
	}})
	require.NoError(l.t, err)
	e.tidyBytes = 4 << 10
	l.Engine = e
}

func (l *littered) reopen() {
	l.t.Helper()
	require.NoError(l.t, l.Close())
	l.open()
}

// write puts versions of random keys.
func (l *littered) write(versions int) {
	l.t.Helper()
	b := l.NewBatch()
	defer b.Close()
	for range versions {
		key, value := fmt.Sprintf("k%03d", l.rng.IntN(litteredKeys)), make([]byte, 200)
		for i := range value {
			value[i] = 'a' + byte(l.rng.IntN(26))
		}
		require.NoError(l.t, b.Set(DataKey([]byte(key), l.next), value, nil))
		l.live[fmt.Sprintf("%s@%d", key, l.next)] = string(value)
		l.next++
	}
	require.NoError(l.t, l.Commit(b))
}

// remove removes all versions of a part of the keys, one by one.
func (l *littered) remove(part float64) {
	l.t.Helper()
	b := l.NewBatch()
	defer b.Close()
	it, err := l.NewReader().NewIter(nil)
	require.NoError(l.t, err)
	for it.First(); it.Valid(); it.Next() {
		key, rev, ok := DecodeDataKey(it.Key())
		require.True(l.t, ok)
		if int(rev)%100 >= int(part*100) {
			continue
		}
		require.NoError(l.t, b.DeleteSized(it.Key(), uint32(200), nil))
		delete(l.live, fmt.Sprintf("%s@%d", key, rev))
	}
	require.NoError(l.t, it.Close())
	require.NoError(l.t, l.Commit(b))
}

func (l *littered) check() {
	l.t.Helper()
	got, want := dump(l.t, l.NewReader(), shard.Everything()), make([]string, 0, len(l.live))
	for version, value := range l.live {
		want = append(want, version+"="+value)
	}
	slices.Sort(got)
	slices.Sort(want)
	require.Equal(l.t, want, got)
}

// removals counts those that something may lie below.
func (l *littered) removals() (n uint64) {
	l.t.Helper()
	levels, err := l.db.SSTables(pebble.WithProperties())
	require.NoError(l.t, err)
	for _, tables := range levels[:len(levels)-1] {
		for _, t := range tables {
			n += t.Properties.NumDeletions
		}
	}
	return n
}

func (l *littered) tidy(ctx context.Context, goOn func() bool) bool {
	l.t.Helper()
	done, err := l.Tidy(ctx, goOn)
	require.NoError(l.t, err)
	return done
}

func always() bool { return true }

// Few removals stay where they are, many are brought down, and what is there is what was.
func TestTidy(t *testing.T) {
	l := newLittered(t)
	for range 20 {
		l.write(500)
	}
	l.remove(0.05)
	require.True(t, l.tidy(t.Context(), func() bool {
		require.Fail(t, "a twentieth is not worth it")
		return false
	}))
	l.check()

	l.alone = true // or Pebble might have left it too little
	l.reopen()
	stored := l.storedBytes()
	l.remove(0.9)
	asked := 0
	require.True(t, l.tidy(t.Context(), func() bool { asked++; return true }))
	require.Greater(t, asked, 3, "it goes piece by piece")
	require.Zero(t, l.removals())
	require.Less(t, l.storedBytes(), stored/5)
	l.check()
	l.remove(1)
	require.True(t, l.tidy(t.Context(), always))
	require.Empty(t, dump(t, l.NewReader(), shard.Everything()))
	require.Zero(t, l.Metrics().BlobFiles.LiveCount)
}

// What is left after some pieces the next one does, also in another process.
func TestTidyGoesOnLater(t *testing.T) {
	l := newLittered(t)
	for range 20 {
		l.write(500)
	}
	l.alone = true // or some of what a stopped Tidy leaves may be gone before the next
	l.reopen()
	l.remove(0.9)
	turns := 0
	for !l.tidy(t.Context(), func() bool { turns++; return turns%3 != 0 }) {
		l.check()
		l.reopen()
	}
	require.Greater(t, turns, 3)
	require.Less(t, removedBytes(must(l.db.SSTables(pebble.WithProperties())))*tidyPart, l.storedBytes())
	l.check()

	l.remove(1)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := l.Tidy(ctx, func() bool { cancel(); return true })
	require.ErrorIs(t, err, context.Canceled)
	l.reopen()
	l.check()
}

// Writes and the replacement of a span go on beside it.
func TestTidyBesideOthers(t *testing.T) {
	l := newLittered(t)
	for range 20 {
		l.write(500)
	}
	l.remove(0.9)
	replaced := span("k100", "k200")
	require.True(t, l.tidy(t.Context(), func() bool {
		l.write(50)
		for version := range l.live {
			if replaced.Contains([]byte(version[:4])) {
				delete(l.live, version)
			}
		}
		ended := make(chan error)
		go func() {
			ended <- l.Replace(replaced, func(w *SSTWriter) error { return w.Put([]byte("k150"), l.next, []byte("new")) })
		}()
		_, err := l.Tidy(t.Context(), always) // both at once
		require.NoError(t, err)
		require.NoError(t, <-ended)
		l.live[fmt.Sprintf("k150@%d", l.next)] = "new"
		l.next++
		return true
	}))
	l.check()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
