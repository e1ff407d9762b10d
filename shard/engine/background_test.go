package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// What is read in the background leaves the cache about as large as it was; what others read fills it, and stays (E8).
func TestBackgroundDoesNotFillTheCache(t *testing.T) {
	const values, valueBytes = 400, 256 << 10
	e, err := Open(storeDir, Options{FS: vfs.NewMem(), CacheBytes: 512 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	random := rand.NewChaCha8([32]byte{})
	for i := range values {
		value := make([]byte, valueBytes) // of bytes that do not compress
		_, _ = random.Read(value)
		put(t, e, fmt.Sprintf("%c%03d", 'a'+i%2, i), shard.Revision(100+i), string(value))
	}
	require.NoError(t, e.Sync())
	walk := func(from, to string, step func(func())) {
		lower, upper := DataSpanBounds(span(from, to))
		it, err := e.NewReader().NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		require.NoError(t, err)
		defer func() { require.NoError(t, it.Close()) }()
		for valid := it.First(); valid; {
			step(func() {
				_, err := it.ValueAndErr()
				require.NoError(t, err)
				valid = it.Next()
			})
		}
	}
	directly := func(f func()) { f() }
	const half = values / 2 * valueBytes

	start := e.cache.Size()
	walk("a", "z", e.Background)
	require.LessOrEqual(t, e.cache.Size(), start+backgroundBytes+memTableBytes)
	walk("a", "b", directly)
	require.Greater(t, e.cache.Size(), int64(half*3/4), "whoever waits has all the room")
	before := e.cache.Size()
	walk("b", "z", e.Background)
	require.Less(t, e.cache.Size(), before+backgroundBytes+memTableBytes)
	require.Greater(t, e.cache.Size(), int64(half/2), "what others have read has its room")
}
