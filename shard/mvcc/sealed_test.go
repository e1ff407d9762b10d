package mvcc

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// V8: what is settled in the middle of an update is read from the store, though the update has looked keys up there
// before it was stored.
func TestSettledAmidAnUpdate(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	w := NewWriter(e.NewReader(), NewHeaderCache(NewHeaderBudget(0, 16, 0)))
	key := []byte("key")
	put := func(value string) {
		found, err := w.Find(key)
		require.NoError(t, err)
		require.NoError(t, w.Put(key, []byte(value), 0, found))
	}
	store := func(s *Sealed) {
		b := e.NewBatch()
		require.NoError(t, s.Store(b))
		require.NoError(t, e.Commit(b))
		require.NoError(t, b.Close())
		s.End(nil)
	}
	w.Begin(1000)
	put("old")
	w.Pause()
	store(w.Seal())
	w.Settle()
	w.Begin(1001)
	put("new")
	w.Pause()
	sealed := w.Seal()

	w.Begin(1002)
	_, err := w.Find([]byte("another"))
	require.NoError(t, err)
	store(sealed)
	w.Settle()
	kv, err := w.Get(key)
	require.NoError(t, err)
	require.Equal(t, "new", string(kv.Value))
	w.Pause()
	require.NoError(t, e.Close())
}
