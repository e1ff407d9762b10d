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
		var m muster
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
				<-m.next(time.Second)
				c.enter(propose)
				mu.Lock()
				defer mu.Unlock()
				require.Equal(t, time.Second, time.Since(began))
			})
		}
		work.Wait()
		require.Equal(t, 51, entered)
		require.Empty(t, c.waiting)
	})
}
