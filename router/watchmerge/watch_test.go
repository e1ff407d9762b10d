package watchmerge

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

func prefix(p string) shard.Span {
	return shard.RequestSpan([]byte(p), []byte{p[0] + 1})
}

// One shard: its events go straight through, and nothing is written for them.
func TestOneShardPassesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "m")
		w.frozen = true
		m, _ := w.merger()
		c := m.client(t, prefix("a"), 1)
		w.put("a1", "a2")
		last := w.put("a3")
		w.put("z")
		synctest.Wait()
		c.take(64)
		require.Equal(t, "a1 a2 a3 ", c.keys())
		require.Equal(t, last, c.through)
		require.Zero(t, w.closed())

		// Now that the node knows that the shard is its own, another watch needs no wait.
		c = m.client(t, prefix("a"), 1)
		c.take(64)
		require.Equal(t, "a1 a2 a3 ", c.keys())
	})
}

// A watch that begins in the future is told nothing before, and promises nothing.
func TestAFutureStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, splits := range [][]string{nil, {"m"}} {
			w := newWorld(t, 1, splits...)
			w.frozen = true
			m, _ := w.merger()
			now := w.put("a")
			from := now + 300
			c := m.client(t, shard.Everything(), from)
			synctest.Wait()
			c.take(64)
			require.Less(t, c.through, from-1)
			var first shard.Revision
			for first < from {
				first = w.put("a", "b")
			}
			c.until(first)
			require.Equal(t, w.changes(shard.Everything(), from, first), transactions(c.events))
			m.Close()
		}
	})
}

// A transaction from before a split touches both halves; both give their part of it, and
// it comes whole (W3).
func TestATransactionOverALaterSplitComesWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.frozen = true
		w.put("a", "x")
		w.put("x", "b")
		w.split("m")
		m, _ := w.merger()
		c := m.client(t, shard.Everything(), 1)
		synctest.Wait()
		var polls [][]string
		for len(polls) < 2 {
			got, err := c.watch.Poll(1)
			require.NoError(t, err)
			if len(got.Events) > 0 {
				polls = append(polls, transactions(got.Events))
			}
		}
		require.Equal(t, w.changes(shard.Everything(), 1, 1<<60), append(polls[0], polls[1]...))
	})
}

// However many shards there are, an event wakes its watch when it comes, and when the last of
// the others has come as far.
func TestAnEventWakesTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "b", "c", "d", "e", "f", "g", "h")
		w.frozen = true
		m, _ := w.merger()
		kick := make(chan struct{}, 100)
		watch := m.Open(Options{Span: shard.Everything(), From: 2}, func() { kick <- struct{}{} })
		defer watch.Close()
		var given []*mvccpb.Event
		rounds := func() (n int) {
			for synctest.Wait(); len(kick) > 0; synctest.Wait() {
				n++
				for len(kick) > 0 {
					<-kick
				}
				got, err := watch.Poll(64)
				require.NoError(t, err)
				given = append(given, got.Events...)
			}
			return n
		}
		rounds() // until all feeds are open
		for range 5 {
			bubble.Pass(time.Second)
			given = nil
			w.put("a")
			require.Equal(t, 2, rounds())
			require.Len(t, given, 1)
		}
	})
}

// Closing a watch, or everything, leaves nothing behind, whatever is under way.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "m")
		m, _ := w.merger()
		early := m.client(t, shard.Everything(), 1)
		early.watch.Close() // while its parts are being opened
		open := m.client(t, shard.Everything(), 1)
		synctest.Wait()
		require.Len(t, w.feeds, 2)
		open.watch.Close()
		require.Empty(t, w.feeds)
		_, err := open.watch.Poll(1)
		require.ErrorIs(t, err, shard.ErrStopped)

		w.refuse = shard.ErrUnavailable
		trying := m.client(t, shard.Everything(), 1)
		bubble.Pass(time.Second)
		m.Close()
		<-trying.kick
		_, err = trying.watch.Poll(1)
		require.ErrorIs(t, err, shard.ErrStopped)
		late := m.client(t, shard.Everything(), 1)
		_, err = late.watch.Poll(1)
		require.ErrorIs(t, err, shard.ErrStopped)
	})
}
