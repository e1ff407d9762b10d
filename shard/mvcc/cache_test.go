package mvcc

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// Two caches share a budget; one that comes when it is used up still has a little, and
// a cache that is given up returns its share.
func TestHeaderBudget(t *testing.T) {
	const headersOwn = 256
	budget := NewHeaderBudget(1000, headersOwn)
	fill := func(c *HeaderCache, n int) {
		for i := range n {
			c.set(fmt.Sprint("key", i), Header{Version: int64(i)})
		}
	}
	first, second := NewHeaderCache(budget), NewHeaderCache(budget)
	fill(first, 5000)
	require.Equal(t, headersOwn+1000, first.Len())
	fill(second, 5000)
	require.Equal(t, headersOwn, second.Len())

	h, ok := second.get([]byte("key4999"))
	require.True(t, ok, "the newest are kept")
	require.EqualValues(t, 4999, h.Version)
	_, ok = second.get([]byte("key0"))
	require.False(t, ok)

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
	budget := NewHeaderBudget(3, 2)
	c := NewHeaderCache(budget)
	for _, key := range []string{"a", "b", "m", "n", "z"} {
		c.set(key, Header{Mod: 1})
	}
	require.Equal(t, 5, c.Len())
	c.Keep(shard.Span{End: []byte("m")})
	require.Equal(t, 2, c.Len())
	_, ok := c.get([]byte("b"))
	require.True(t, ok)
	_, ok = c.get([]byte("m"))
	require.False(t, ok)
	other := NewHeaderCache(budget)
	for i := range 10 {
		other.set(string([]byte{byte(i)}), Header{Mod: 1})
	}
	require.Equal(t, 5, other.Len(), "the other has its own two and all three of the budget")
}
