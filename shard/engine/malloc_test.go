package engine

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Memtables come and go as before, whether they were made before the call or after it: nothing of
// a store is lost, neither of batches that are tables by themselves nor of those between them.
func TestMemTablesThatAreMapped(t *testing.T) {
	e := openMem(t, vfs.NewMem())
	value := bytes.Repeat([]byte("v"), 1<<10)
	put := func(from, n int) {
		b := e.NewBatch()
		defer func() { require.NoError(t, b.Close()) }()
		for i := range n {
			require.NoError(t, b.Set(DataKey(fmt.Appendf(nil, "%06d", from+i), 100), value, nil))
		}
		require.NoError(t, e.Commit(b))
	}
	const large = memTableBytes / 1000
	all := 0
	for i := range 6 {
		if i == 2 {
			MapMemTables()
		}
		for _, n := range []int{large, 10} {
			put(all, n)
			all += n
		}
		require.NoError(t, e.Sync())
	}
	it, err := e.NewReader().NewIter(nil)
	require.NoError(t, err)
	n := 0
	for valid := it.First(); valid; valid = it.Next() {
		if bytes.Equal(it.Value(), value) {
			n++
		}
	}
	require.NoError(t, it.Close())
	require.Equal(t, all, n)
}
