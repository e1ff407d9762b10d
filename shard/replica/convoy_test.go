package replica

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Proposals of shards that start at the same tick are made by one goroutine, without anybody waiting for who does not come.
func TestProposalsEnterTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c convoy
		var mu sync.Mutex
		began, entered := time.Now(), 0
		propose := func() {
			mu.Lock()
			defer mu.Unlock()
			entered++
		}
		c.enter(propose)
		require.Equal(t, 1, entered, "nobody else is there")
		var work sync.WaitGroup
		for range 50 {
			work.Go(func() {
				<-c.tick(began.Add(time.Second).UnixNano(), time.Second)
				c.enter(propose)
				mu.Lock()
				defer mu.Unlock()
				require.Equal(t, time.Second, time.Since(began))
			})
		}
		synctest.Wait()
		c.mu.Lock()
		require.Len(t, c.ticks, 1)
		c.mu.Unlock()
		work.Wait()
		require.Equal(t, 51, entered)
		require.Empty(t, c.ticks)
		require.Empty(t, c.waiting)
	})
}
