package watchmerge

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

// Two shards: what the first writes waits for the second, which is asked to close, and
// nothing is when nothing waits (W8).
func TestAnIdleShardIsClosedForABusyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "m")
		w.frozen = true
		m, r := w.merger()
		c := m.client(t, shard.Everything(), 1)
		synctest.Wait()
		c.take(64)
		bubble.Pass(time.Hour)
		require.Zero(t, w.closed(), "an idle cluster writes nothing")
		require.True(t, c.watch.Span().Equal(shard.Everything()))
		last := w.put("a")
		c.until(last)
		require.Equal(t, "a ", c.keys())
		require.Equal(t, 1, w.closed())
		bubble.Pass(time.Hour)
		c.take(64)
		require.Equal(t, 1, w.closed())

		// Progress that was told to a reader is reached by a Close, and only the first time.
		settled, err := r.Settle(context.Background(), shard.Everything())
		require.NoError(t, err)
		require.Equal(t, last, settled)
		for range 3 {
			c.watch.Await(settled)
			c.until(settled)
		}
		require.Equal(t, 1, w.closed())
	})
}

// A shard that is closed is closed to all that the process has seen: what waits for it next
// finds that done.
func TestACloseReachesWhatHasBeenSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "m", "t")
		w.frozen = true
		m, _ := w.merger()
		c := m.client(t, shard.Span{Start: []byte("a"), End: []byte("t")}, 1)
		synctest.Wait()
		c.take(64)
		first := w.put("a")
		seen := w.put("z") // of a shard that is not watched
		c.until(first)
		require.Equal(t, 1, w.closed())
		c.watch.Await(seen)
		c.until(seen)
		require.Equal(t, 2, w.closed(), "the busy one; the idle one was closed to it already")
	})
}

// Closes for watches are paced, however many events and watches there are.
func TestClosesArePacedAndShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "m")
		w.frozen = true
		m, _ := w.merger()
		var clients []*client
		for range 20 {
			c := m.client(t, shard.Everything(), 1)
			go func() {
				for range c.kick {
					c.take(64)
				}
			}()
			clients = append(clients, c)
		}
		for range 1000 {
			w.put("a")
			bubble.Pass(100 * time.Microsecond)
		}
		bubble.Pass(time.Second)
		require.LessOrEqual(t, w.closed(), 55, "one each 2 ms in 100 ms")
		require.GreaterOrEqual(t, w.closed(), 25)
		require.Equal(t, w.closed(), w.promises, "nothing is written where all feeds are this node's")
		for _, c := range clients {
			close(c.kick)
		}
		synctest.Wait()
		for _, c := range clients {
			require.Len(t, c.events, 1000)
			c.watch.ready = nil // nobody listens any more
			c.watch.Close()
		}
	})
}
