package engine

import (
	"flag"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/flotilla-kv/flotilla/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var seed = flag.Uint64("seed", 1, "of the random tests")

const storeDir = "node/store"

func openMem(t *testing.T, fs vfs.FS) *Engine {
	t.Helper()
	e, err := Open(storeDir, Options{FS: fs, CacheBytes: 1 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// put commits one version; its value carries no flags.
func put(t *testing.T, e *Engine, key string, rev shard.Revision, value string) {
	t.Helper()
	b := e.NewBatch()
	defer b.Close()
	require.NoError(t, b.Set(DataKey([]byte(key), rev), []byte(value), nil))
	require.NoError(t, e.Commit(b))
}

// dump lists what a Reader shows of the span, as key@revision=value.
func dump(t *testing.T, r Reader, span shard.Span) []string {
	t.Helper()
	lower, upper := DataSpanBounds(span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	require.NoError(t, err)
	defer func() { require.NoError(t, it.Close()) }()
	out := []string{}
	for it.First(); it.Valid(); it.Next() {
		key, rev, ok := DecodeDataKey(it.Key())
		require.True(t, ok, "%x", it.Key())
		v, err := it.ValueAndErr()
		require.NoError(t, err)
		out = append(out, fmt.Sprintf("%s@%d=%s", key, rev, v))
	}
	require.NoError(t, it.Error())
	return out
}

func span(start, end string) shard.Span {
	return shard.Span{Start: []byte(start), End: []byte(end)}
}

func TestReopenKeepsSyncedData(t *testing.T) {
	fs := vfs.NewMem()
	e, err := Open(storeDir, Options{FS: fs})
	require.NoError(t, err)
	put(t, e, "a", 5, "old")
	put(t, e, "a", 9, "new")
	put(t, e, "b", 7, "b")
	require.NoError(t, e.Close())

	e = openMem(t, fs)
	require.Equal(t, []string{"a@9=new", "a@5=old", "b@7=b"}, dump(t, e.NewReader(), shard.Everything()))
}

func TestSpanSize(t *testing.T) {
	e := openMem(t, vfs.NewMem())
	for i := range 2000 {
		put(t, e, fmt.Sprintf("key/%05d", i), shard.Revision(i+2), string(make([]byte, 100)))
	}
	require.NoError(t, e.db.Flush())
	all, err := e.SpanSize(shard.Everything())
	require.NoError(t, err)
	require.Positive(t, all)
	half, err := e.SpanSize(span("key/01000", ""))
	require.NoError(t, err)
	require.Greater(t, all, half)
	none, err := e.SpanSize(span("x", "b"))
	require.NoError(t, err)
	require.Zero(t, none)
}

// A store has one owner; the second neither gets it nor disturbs the first.
func TestOpenTwice(t *testing.T) {
	fs := vfs.NewMem()
	e := openMem(t, fs)
	require.NoError(t, e.Replace(shard.Everything(), func(w *SSTWriter) error {
		if err := w.Put([]byte("a"), 2, []byte("1")); err != nil {
			return err
		}
		_, err := Open(storeDir, Options{FS: fs})
		require.ErrorContains(t, err, "open store in "+storeDir)
		return nil
	}))
	require.Equal(t, []string{"a@2=1"}, dump(t, e.NewReader(), shard.Everything()))
}

// What a crash left of a snapshot being received is gone after a start.
func TestOpenClearsIncoming(t *testing.T) {
	fs := vfs.NewMem()
	e, err := Open(storeDir, Options{FS: fs})
	require.NoError(t, err)
	require.NoError(t, writeSynced(fs, fs.PathJoin(e.incoming, "000001.sst"), "half a table"))
	require.NoError(t, e.Close())
	e = openMem(t, fs)
	names, err := fs.List(e.incoming)
	require.NoError(t, err)
	require.Empty(t, names)
}
