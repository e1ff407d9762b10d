package mvcc

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
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
