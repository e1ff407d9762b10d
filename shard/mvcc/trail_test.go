package mvcc

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// walks counts how often all changes of a span were walked over, and how often some were
// looked up.
type walks struct {
	engine.Reader
	walks, lookups int
}

func (w *walks) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	if o != nil && len(o.PointKeyFilters) > 0 {
		w.walks++
	} else {
		w.lookups++
	}
	return w.Reader.NewIter(o)
}

func granted() error { return nil }

// changes writes so many revisions, of two changes each, to keys that come again.
func changes(t testing.TB, e *engine.Engine, revisions, keys int) {
	changesOf(t, e, revisions, keys, func(i int) []byte { return []byte(strings.Repeat("v", i%200)) })
}

// changesOf is changes with the values of each revision.
func changesOf(t testing.TB, e *engine.Engine, revisions, keys int, value func(i int) []byte) {
	cache := NewHeaderCache(NewHeaderBudget(0, 8, 0))
	for i := range revisions {
		b := e.NewBatch()
		w := NewWriter(e.NewReader(), cache)
		w.Begin(shard.Revision(10 + i))
		for _, key := range []string{fmt.Sprintf("k%04d", i*7%keys), fmt.Sprintf("k%04d", (i*7+1)%keys)} {
			prev, err := w.Find([]byte(key))
			require.NoError(t, err)
			require.NoError(t, w.Put([]byte(key), value(i), 0, prev))
		}
		require.NoError(t, w.Store(b))
		require.NoError(t, e.Commit(b))
		w.Finish()
		require.NoError(t, b.Close())
	}
}

// Catching up takes one walk over the changes, in however many pieces they are taken, and one
// more for each trail that they fill. Each change is looked up once.
func TestCatchingUpIsLinear(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	const revisions, keys = 3000, 50
	changes(t, e, revisions, keys)
	last := shard.Revision(9 + revisions)
	for _, c := range []struct{ bytes, walks int }{
		{1 << 20, 1},
		{trailBytes + keys*(5+keyBytes) + 1000*refBytes, 6}, // 6000 changes
	} {
		trails := NewTrails(1 << 20)
		trails.trailMax = c.bytes
		w := &walks{Reader: e.NewReader()}
		from, events, pieces := shard.Revision(1), 0, 0
		for from < last {
			got, through, err := trails.Events(w, shard.Everything(), from, last, EventsOptions{Limit: 100}, granted)
			require.NoError(t, err)
			require.LessOrEqual(t, trails.mu.bytes, c.bytes+2*refBytes, "bounded")
			from, events, pieces = through, events+len(got), pieces+1
		}
		require.Equal(t, 2*revisions, events)
		require.InDelta(t, c.walks, w.walks, 1)
		require.Equal(t, pieces, w.lookups)
	}
}

// What is remembered stays within its bytes: those go that were not asked for for longest.
func TestTrailsAreBounded(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	changes(t, e, 2000, 100)
	one := trailBytes + 20*refBytes + 5 + keyBytes // 40 changes of each key, 20 of them left or more
	trails := NewTrails(4 * one)
	w := &walks{Reader: e.NewReader()}
	list := func(i int) {
		span := shard.PointSpan(fmt.Appendf(nil, "k%04d", i))
		got, _, err := trails.Events(w, span, 1, 2009, EventsOptions{Limit: 1}, granted)
		require.NoError(t, err)
		require.Len(t, got, 1)
	}
	for i := range 100 {
		list(i)
		require.LessOrEqual(t, trails.mu.bytes, 4*one)
		list(i)
		require.Equal(t, i+1, w.walks, "the last one is remembered")
	}
	list(0)
	require.Equal(t, 101, w.walks)
}

// A walk that did not find all, because history was being replaced or collected meanwhile, is
// not remembered; one whose changes were collected since is made again.
func TestTrailsThatLeadNowhere(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	changes(t, e, 100, 10)
	trails := NewTrails(1 << 20)
	w := &walks{Reader: e.NewReader()}
	unfit := errors.New("being replaced")
	o := EventsOptions{Limit: 10}
	_, _, err := trails.Events(w, shard.Everything(), 1, 109, o, func() error { return unfit })
	require.ErrorIs(t, err, unfit)
	require.Zero(t, trails.mu.trails.Len())

	_, _, err = trails.Events(w, shard.Everything(), 1, 109, o, granted)
	require.NoError(t, err)
	require.Equal(t, 2, w.walks)
	b := e.NewBatch()
	done, err := Collect(e.NewReader(), b, shard.Everything(), 0, 100, nil, CollectLimits{Versions: 1000, Drops: 1000, Singles: 1000})
	require.NoError(t, err)
	require.True(t, done.Next == nil)
	require.NoError(t, e.Commit(b))
	require.NoError(t, b.Close())
	got, _, err := trails.Events(w, shard.Everything(), 50, 109, o, granted)
	require.NoError(t, err)
	require.Equal(t, 3, w.walks)
	require.NotEmpty(t, got)
}
