package watchmerge

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

// What parts have given and nobody has taken yet is bounded too, however many parts there are: a
// reader of history that is slower than they are does not have all of it in memory (W7).
func TestWhatIsReadyIsTakenBeforeMoreIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "b", "c", "d", "e", "f", "g", "h")
		w.frozen = true
		const rounds = 200
		for range rounds {
			for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
				w.put(key)
			}
		}
		last := w.latest()
		m, _ := w.merger()
		c := m.client(t, shard.Everything(), 1)
		synctest.Wait()
		const limit = 8
		most := 0
		for range 2 * rounds {
			got, err := c.watch.Poll(limit)
			require.NoError(t, err)
			c.events, c.through = append(c.events, got.Events...), max(c.through, got.Through)
			if m := c.watch.merging; m != nil {
				most = max(most, len(m.out))
			}
			synctest.Wait()
		}
		c.until(last)
		require.Equal(t, w.changes(shard.Everything(), 1, last), transactions(c.events))
		require.LessOrEqual(t, most, 8*limit)
	})
}

// A part that is ahead is left alone after a few large events, too (W7).
func TestLargeEventsOfAPartThatIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "m")
		w.frozen = true
		w.value = make([]byte, heldBytesMax/4)
		for range 64 {
			w.put("a")
		}
		last := w.put("z")
		w.lost = w.shards[1].desc.ID
		m, _ := w.merger()
		c := m.client(t, shard.Everything(), 1)
		for range 100 {
			bubble.Pass(time.Millisecond)
			c.take(2)
		}
		require.Empty(t, c.events)
		require.LessOrEqual(t, len(c.watch.first.held), 4+2)
		w.mu.Lock()
		w.lost = 0
		w.mu.Unlock()
		for c.take(2); c.through < last; c.take(2) {
			<-c.kick
		}
		require.Len(t, c.events, 64+1)
		require.Zero(t, c.watch.first.bytes)
	})
}

// A part that may not be polled because it is full wakes nobody, while another one has no feed: a
// watch of a shard that is lost would keep a processor busy.
func TestAFullPartDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "m", "t")
		w.frozen = true
		for range 2 * heldMax {
			w.put("n")
		}
		last := w.put("z")
		w.lost = w.shards[0].desc.ID
		m, _ := w.merger()
		c := m.client(t, shard.Everything(), 1)
		polls := 0
		for range 1000 {
			bubble.Pass(time.Millisecond)
			select {
			case <-c.kick:
				polls++
				_, err := c.watch.Poll(64)
				require.NoError(t, err)
			default:
			}
		}
		require.Less(t, polls, 100)
		w.mu.Lock()
		w.lost = 0
		w.mu.Unlock()
		c.until(last)
		require.Len(t, c.events, 2*heldMax+1)
	})
}
