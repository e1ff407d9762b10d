package engine

import (
	"fmt"
	"math/rand/v2"
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
		if rev == 500 { // two tables at least: one alone would only be moved
			require.NoError(t, e.db.Flush())
		}
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

// Values that compress take less room than those that do not, though it is not tried for each block of these.
func TestValuesThatCompress(t *testing.T) {
	const values, valueBytes = 400, 4 << 10
	stored := func(fill func([]byte)) uint64 {
		e, err := Open(storeDir, Options{FS: vfs.NewMem(), CacheBytes: 1 << 20})
		require.NoError(t, err)
		defer func() { require.NoError(t, e.Close()) }()
		value := make([]byte, valueBytes)
		for i := range values {
			fill(value)
			value[flagsByte] = 0
			put(t, e, fmt.Sprintf("k%03d", i), 10, string(value))
		}
		require.NoError(t, e.db.Flush())
		return e.Metrics().DiskSpaceUsage()
	}
	random := rand.New(rand.NewPCG(*seed, 2))
	noise := func(b []byte) {
		for i := range b {
			b[i] = byte(random.Uint32())
		}
	}
	require.Greater(t, stored(noise), uint64(values*valueBytes))
	repeated := func(b []byte) {
		noise(b[:8])
		for i := 8; i < len(b); i++ {
			b[i] = b[i-8]
		}
	}
	require.Less(t, stored(repeated), uint64(values*valueBytes/4))
}
