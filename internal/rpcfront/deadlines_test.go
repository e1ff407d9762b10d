package rpcfront

import (
	"context"
	"maps"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
)

// TestDeadlines is F5's: each call ends at its own deadline, in whatever order they begin and whichever have ended, and one
// whose handler has answered does not.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, other := net.Pipe()
		defer other.Close()
		c := newConn(&Server{}, nc)
		c.out.writing = true // nobody shall
		began := time.Now()
		begin := func(id uint32, limit time.Duration) *call {
			k := &call{Context: t.Context(), conn: c, id: id}
			if limit > 0 {
				k.deadline = began.Add(limit)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.calls[id] = k
			c.deadlines.add(k)
			return k
		}
		ended := make(map[uint32]time.Duration)
		wait := func(calls ...*call) {
			for _, k := range calls {
				context.AfterFunc(k, func() {
					require.ErrorIs(t, k.Err(), context.DeadlineExceeded)
					c.mu.Lock()
					defer c.mu.Unlock()
					ended[k.id] = time.Since(began)
				})
			}
		}
		answered, forever := begin(1, 20*time.Second), begin(3, 0)
		wait(begin(5, 10*time.Second), begin(7, 5*time.Second), begin(9, 30*time.Second))
		c.mu.Lock()
		answered.answered = true
		c.mu.Unlock()
		bubble.Pass(time.Minute)
		wait(begin(11, 70*time.Second), begin(13, 65*time.Second))
		bubble.Pass(time.Minute)
		synctest.Wait()
		require.Equal(t, map[uint32]time.Duration{
			5: 10 * time.Second, 7: 5 * time.Second, 9: 30 * time.Second, 11: 70 * time.Second, 13: 65 * time.Second,
		}, ended)
		require.NoError(t, answered.Err())
		require.NoError(t, forever.Err())
		require.ElementsMatch(t, []uint32{1, 3}, slices.Collect(maps.Keys(c.calls)))
		c.close()
		require.ErrorIs(t, forever.Err(), context.Canceled)
	})
}
