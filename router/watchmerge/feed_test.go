package watchmerge

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// A shard that was split elsewhere, or has taken another's keys, is asked to promise as it is
// now: the feed of what it had before and still has goes on.
func TestAFeedThatOutlivesAReshapeIsBroughtOn(t *testing.T) {
	for _, c := range []struct {
		name    string
		reshape func(w *world)
	}{
		{"split", func(w *world) { w.split("t") }},
		{"merge", func(w *world) { w.merge("z") }},
		{"merge and split", func(w *world) { w.merge("z"); w.split("u") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, "m", "x")
				w.frozen = true
				m, _ := w.merger()
				client := m.client(t, shard.Span{Start: []byte("a"), End: []byte("p")}, 1)
				synctest.Wait()
				client.take(64)
				c.reshape(w)
				synctest.Wait()
				opened := w.opened
				w.put("a")
				for range 100 {
					bubble.Pass(10 * time.Millisecond)
					client.take(64)
				}
				require.Equal(t, "a ", client.keys())
				require.Equal(t, opened, w.opened, "no feed has ended")
			})
		})
	}
}

// closingFeed ends, and the merger is closed just then.
type closingFeed struct {
	router.Feed
	merger *Merger
}

func (f closingFeed) Poll(int) (shard.Changes, error) {
	f.merger.Close()
	return shard.Changes{}, shard.ErrUnavailable
}

// A watch whose feed ends while the merger is being closed is told so: nobody opens another feed for it.
func TestAFeedThatEndsWithTheMerger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newWorld(t, 1).merger()
		var told atomic.Int64
		w := m.Open(Options{Span: shard.Everything(), From: 1}, func() { told.Add(1) })
		defer w.Close()
		synctest.Wait()
		_, err := w.Poll(64)
		require.NoError(t, err)
		w.first.feed = closingFeed{w.first.feed, m}
		w.first.signal()
		told.Store(0)
		_, err = w.Poll(64)
		require.NoError(t, err)
		require.Positive(t, told.Load())
		_, err = w.Poll(64)
		require.ErrorIs(t, err, shard.ErrStopped)
	})
}

// A part that is far ahead is not asked for more, and the one behind always is (W7).
func TestAPartThatIsAheadIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "m")
		w.frozen = true
		m, _ := w.merger()
		w.elect("z", false) // the second shard cannot be closed
		c := m.client(t, shard.Everything(), 1)
		for range 4 * heldMax {
			w.put("a")
		}
		for range 100 {
			c.take(64)
			bubble.Pass(time.Millisecond)
		}
		require.Empty(t, c.events)
		require.LessOrEqual(t, len(c.watch.first.held), heldMax+64)
		w.elect("z", true)
		c.until(w.Seen())
		require.Len(t, c.events, 4*heldMax)
	})
}

// Replicas that refuse, or give feeds that end at once, are not asked in a busy loop.
func TestFailuresArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, refusal := range []error{shard.ErrUnavailable, &shard.NoReplicaError{}, shard.ErrStopped, errors.New("unheard of"), context.DeadlineExceeded} {
			w := newWorld(t, 1)
			w.frozen = true
			w.refuse = refusal
			m, _ := w.merger()
			c := m.client(t, shard.Everything(), 1)
			bubble.Pass(10 * time.Second)
			w.mu.Lock()
			require.Less(t, w.opened, 120, "%v", refusal)
			require.Greater(t, w.opened, 20, "%v", refusal)
			w.refuse = nil
			w.mu.Unlock()
			c.until(w.put("a"))

			w.mu.Lock()
			w.opened = 0
			w.mu.Unlock()
			for range 1000 { // each feed ends before it has given anything
				w.cutFeed()
				c.take(64)
				bubble.Pass(10 * time.Millisecond)
			}
			w.mu.Lock()
			require.Less(t, w.opened, 120)
			w.mu.Unlock()
			m.Close()
		}
	})
}
