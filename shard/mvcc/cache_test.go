package mvcc

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// Two caches share a budget; one that comes when it is used up still has a little, and
// a cache that is given up returns its share.
func TestHeaderBudget(t *testing.T) {
	const headersOwn = 256
	budget := NewHeaderBudget(1000, headersOwn, 0)
	fill := func(c *HeaderCache, n int) {
		for i := range n {
			if key := fmt.Sprint("key", i); c.get([]byte(key)) == nil {
				c.add(key, Header{Version: int64(i)})
			}
		}
	}
	first, second := NewHeaderCache(budget), NewHeaderCache(budget)
	fill(first, 5000)
	require.Equal(t, headersOwn+1000, first.Len())
	fill(second, 5000)
	require.Equal(t, headersOwn, second.Len())

	require.EqualValues(t, 4999, second.get([]byte("key4999")).header.Version, "the newest are kept")
	require.Nil(t, second.get([]byte("key0")))

	first.Purge()
	require.Zero(t, first.Len())
	fill(second, 5000)
	require.Equal(t, headersOwn+1000, second.Len())
	second.Purge()
	require.EqualValues(t, 1000, budget.left.Load())
}

// Keep drops headers of keys that were given away, and returns what they took of the
// budget.
func TestHeaderCacheKeeps(t *testing.T) {
	budget := NewHeaderBudget(3, 2, 0)
	c := NewHeaderCache(budget)
	for _, key := range []string{"a", "b", "m", "n", "z"} {
		c.add(key, Header{Mod: 1})
	}
	require.Equal(t, 5, c.Len())
	c.Keep(shard.Span{End: []byte("m")}, 0)
	require.Equal(t, 2, c.Len())
	require.NotNil(t, c.get([]byte("b")))
	require.Nil(t, c.get([]byte("m")))
	other := NewHeaderCache(budget)
	for i := range 10 {
		other.add(string([]byte{byte(i)}), Header{Mod: 1})
	}
	require.Equal(t, 5, other.Len(), "the other has its own two and all three of the budget")
}

// A header that is read now and then outlives any number that are not.
func TestUsedHeadersStay(t *testing.T) {
	c := NewHeaderCache(NewHeaderBudget(0, 10, 0))
	c.add("used", Header{Mod: 1})
	for i := range 1000 {
		require.NotNil(t, c.get([]byte("used")))
		c.add(fmt.Sprint("key", i), Header{Mod: 2})
		require.LessOrEqual(t, c.Len(), 10)
	}
	require.NotNil(t, c.get([]byte("key999")))
	require.Nil(t, c.get([]byte("key900")))
}

// What an update has written of a key is found whatever the cache had to give up meanwhile.
func TestPendingKeysAreFound(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	c := NewHeaderCache(NewHeaderBudget(0, 1, 0))
	w := NewWriter(e.NewReader(), c)
	defer w.Discard()
	w.Begin(5)
	keys := []string{"a", "b", "c"}
	var found []Found
	for _, key := range keys { // each takes the place of the one before
		f, err := w.Find([]byte(key))
		require.NoError(t, err)
		found = append(found, f)
	}
	for i, key := range keys {
		require.NoError(t, w.Put([]byte(key), []byte(key), 0, found[i]))
	}
	for _, key := range keys {
		h, exists, err := w.Header([]byte(key))
		require.NoError(t, err)
		require.True(t, exists)
		require.Equal(t, shard.Revision(5), h.Mod)
		kv, err := w.Get([]byte(key))
		require.NoError(t, err)
		require.Equal(t, key, string(kv.GetValue()))
	}
	w.Discard()
	require.Nil(t, c.get([]byte("a")), "what was not committed is not known afterwards")
}

// Headers that had to go come back, as they were when they were stored last.
func TestHeadersThatHadToGoComeBack(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	budget := NewHeaderBudget(0, 1, 1<<20)
	c := NewHeaderCache(budget)
	w := NewWriter(e.NewReader(), c)
	put := func(rev shard.Revision, keys ...string) {
		w.Begin(rev)
		for _, key := range keys {
			found, err := w.Find([]byte(key))
			require.NoError(t, err)
			require.NoError(t, w.Put([]byte(key), nil, int64(rev), found))
		}
		b := e.NewBatch()
		defer b.Close()
		require.NoError(t, w.Store(b))
		require.NoError(t, e.Commit(b))
		w.Finish()
	}
	put(5, "a", "b", "c")
	put(6, "a", "c")
	for key, version := range map[string]int64{"a": 2, "b": 1, "c": 2} {
		found := c.get([]byte(key))
		if found == nil {
			found = c.unpack([]byte(key))
		}
		require.NotNil(t, found, key)
		require.Equal(t, version, found.header.Version, key)
	}
	for i, forget := range []func(){c.Purge, c.Widen} {
		put(shard.Revision(7+i), "a", "b", "c")
		forget()
		for _, key := range []string{"a", "b"} {
			require.Nil(t, c.unpack([]byte(key)), "others may have changed it")
		}
	}
}

// What is given away another cache takes over, once.
func TestHeadersAreInherited(t *testing.T) {
	const heir = shard.ID(7)
	budget := NewHeaderBudget(0, 2, 1<<20)
	c := NewHeaderCache(budget)
	for i, key := range []string{"x", "a", "z", "b"} {
		c.add(key, Header{Mod: shard.Revision(10 + i)})
	}
	c.Keep(shard.Span{End: []byte("m")}, heir)
	require.Equal(t, 1, c.Len())
	late := NewHeaderCache(budget)
	next := NewHeaderCache(budget)
	next.Inherit(heir)
	late.Inherit(heir)
	for key, rev := range map[string]shard.Revision{"x": 10, "z": 12} {
		require.Nil(t, late.unpack([]byte(key)), key)
		require.Equal(t, rev, next.unpack([]byte(key)).header.Mod, key)
	}
	require.NotNil(t, c.unpack([]byte("a")), "what stays stays")
	require.NotNil(t, c.get([]byte("b")))
}
