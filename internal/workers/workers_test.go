package workers

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// No job waits for another, however many there are, and all are done when Wait returns.
func TestJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pool
		var done atomic.Int64
		for round := range 3 {
			var gate sync.WaitGroup
			gate.Add(1)
			for range 2 * idleMax {
				p.Do(Func(func() {
					gate.Wait()
					done.Add(1)
				}))
			}
			synctest.Wait()
			require.EqualValues(t, round*2*idleMax, done.Load(), "all of them wait for the gate")
			gate.Done()
			synctest.Wait()
			require.EqualValues(t, (round+1)*2*idleMax, done.Load())
			require.Len(t, p.mu.idle, idleMax)
		}
		p.Do(Func(func() { done.Store(-1) }))
		p.Close()
		p.Wait()
		require.EqualValues(t, -1, done.Load())
	})
}

// What comes after Close is done, and leaves no goroutine.
func TestJobAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pool
		p.Close()
		done := false
		p.Do(Func(func() { done = true }))
		synctest.Wait()
		require.True(t, done)
	})
}
