package engine

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// Ten callers that come while a round runs share one later round (E2).
func TestRoundsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var started int
		release := make(chan struct{})
		r := newRounds(func() error {
			started++
			<-release
			return nil
		})
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, r.Do()) })
		synctest.Wait()
		require.Equal(t, 1, started)

		var returned atomic.Int32
		for range 10 {
			wg.Go(func() {
				require.NoError(t, r.Do())
				returned.Add(1)
			})
		}
		synctest.Wait()
		require.Equal(t, 1, started, "they wait for the round that runs")
		release <- struct{}{}
		synctest.Wait()
		require.Equal(t, 2, started)
		require.Zero(t, returned.Load(), "the first round began before they came")
		release <- struct{}{}
		wg.Wait()
		require.Equal(t, 2, started)
	})
}

func TestRoundsShareTheError(t *testing.T) {
	broken := errors.New("disk is gone")
	r := newRounds(func() error { return broken })
	require.ErrorIs(t, r.Do(), broken)
	r.run = func() error { return nil }
	require.NoError(t, r.Do(), "an error does not stick")
}
