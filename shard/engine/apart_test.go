package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// Compactions do not rewrite long values, and flags are known without them; what is removed
// leaves the disk.
func TestLongValuesAreNotRewritten(t *testing.T) {
	e, err := Open(storeDir, Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, tune: func(o *pebble.Options) {
		o.MemTableSize = 64 << 10 // flushes happen
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	want := map[string]string{}
	for rev := shard.Revision(2); rev < 1000; rev++ {
		key := fmt.Sprintf("k%03d", rev*7%200)
		value := strings.Repeat(fmt.Sprintf("%04d", rev), int(rev)%3*apartBytesMin/4+1)
		value = value[:flagsByte] + string(rune(rev%2)) + value[flagsByte+1:]
		put(t, e, key, rev, value)
		want[fmt.Sprintf("%s@%d", key, rev)] = value
	}
	compact := func() {
		require.NoError(t, e.db.Flush())
		require.NoError(t, e.db.Compact(t.Context(), []byte{0}, []byte{0xff, 0}, false))
	}
	compact()
	total := e.Metrics().Total()
	require.NotZero(t, total.TableBytesCompacted)
	require.NotZero(t, total.BlobBytesFlushed)
	require.Equal(t, total.BlobBytesFlushed, total.BlobBytesCompacted, "Pebble counts flushes in both")

	it, err := e.NewReader().NewIter(nil)
	require.NoError(t, err)
	apart := 0
	for it.First(); it.Valid(); it.Next() {
		key, rev, ok := DecodeDataKey(it.Key())
		require.True(t, ok)
		value := want[fmt.Sprintf("%s@%d", key, rev)]
		lazy := it.LazyValue()
		if _, ok := lazy.TryGetShortAttribute(); ok {
			apart++
		}
		flags, err := Flags(it)
		require.NoError(t, err)
		require.EqualValues(t, value[flagsByte], flags)
		got, err := it.ValueAndErr()
		require.NoError(t, err)
		require.Equal(t, value, string(got))
	}
	require.NoError(t, it.Close())
	require.Greater(t, apart, len(want)/2)

	lower, upper := DataSpanBounds(shard.Everything())
	require.NoError(t, e.db.DeleteRange(lower, upper, pebble.NoSync))
	compact()
	require.Zero(t, e.Metrics().BlobFiles.LiveCount)
}
