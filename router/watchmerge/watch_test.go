package watchmerge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/router"
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

// What is gone cannot be watched, and the watch says up to where.
func TestCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, splits := range [][]string{nil, {"m"}} {
			w := newWorld(t, 1, splits...)
			w.frozen = true
			m, _ := w.merger()
			w.put("a")
			second := w.put("z")
			third := w.put("a")
			w.compact(third)
			c := m.client(t, shard.Everything(), second)
			synctest.Wait()
			c.take(64)
			var compacted *shard.CompactedError
			require.ErrorAs(t, c.err, &compacted)
			require.Equal(t, third, compacted.Compacted)
			require.Empty(t, w.feeds, "nothing of an ended watch stays")

			// The compacted revision itself is still there.
			c = m.client(t, shard.Everything(), third)
			c.until(third)
			require.NoError(t, c.err)
			require.Equal(t, "a ", c.keys())
			m.Close()
		}
	})
}

// A watch that has been idle for long goes on where its feed ends, though what it was given last
// may not be asked for any more: the feed has told how far it had come.
func TestAnIdleWatchOutlivesACompaction(t *testing.T) {
	for _, end := range []struct {
		name string
		feed func(w *world)
	}{
		{"broken", func(w *world) { w.cutFeed() }},
		{"split", func(w *world) { w.split("b") }},
		{"moved", func(w *world) { w.move("a") }},
	} {
		t.Run(end.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.frozen = true
				m, _ := w.merger()
				c := m.client(t, shard.Span{Start: []byte("a"), End: []byte("c")}, 1)
				first := w.put("a")
				c.until(first)
				for range 10 {
					w.put("x")
				}
				w.compact(w.put("x"))
				end.feed(w)
				for range 100 {
					bubble.Pass(10 * time.Millisecond)
					c.take(64)
				}
				require.NoError(t, c.err)
				c.until(w.put("a"))
				require.NoError(t, c.err)
				require.Equal(t, "a a ", c.keys())
			})
		})
	}
}

// recorded is a compaction that the process knows of.
type recorded struct {
	router.Compactions
	at shard.Revision
}

func (r *recorded) Compacted() shard.Revision { return r.at }

// What was compacted through this process cannot be watched here, even where no replica has
// heard of it.
func TestCompactionThatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.frozen = true
		m, _ := w.merger()
		first, second := w.put("a"), w.put("b")
		w.recorded.at = second
		c := m.client(t, shard.Everything(), first)
		synctest.Wait()
		c.take(64)
		var compacted *shard.CompactedError
		require.ErrorAs(t, c.err, &compacted)
		require.Equal(t, second, compacted.Compacted)
		require.Empty(t, w.feeds)
		c = m.client(t, shard.Everything(), second)
		c.until(second)
		require.NoError(t, c.err)
		m.Close()
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

// Watches of random spans from random revisions while everything happens to the shards:
// each gets exactly the changes of its span, whole, in order, once (W1 to W6).
func TestRandom(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { random(t, uint64(seed)) })
		})
	}
}

func random(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, seed, "d", "h")
	m, r := w.merger()
	key := func() string { return string([]byte{'a' + byte(rng.IntN(12)), '0' + byte(rng.IntN(4))}) }
	compactions := seed%3 == 0
	var clients []*client
	open := func() {
		a, b := key(), key()
		span := shard.Span{Start: []byte(min(a, b)), End: []byte(max(a, b))}
		switch rng.IntN(4) {
		case 0:
			span = shard.PointSpan([]byte(a))
		case 1:
			span = shard.Everything()
		}
		if span.Empty() {
			return
		}
		var from shard.Revision
		switch rng.IntN(4) {
		case 0:
			from = shard.FirstRevision
		case 1:
			from = w.Seen() + shard.Revision(rng.IntN(2000))
		case 2:
			from = 1 + shard.Revision(rng.Int64N(int64(w.Seen())+1))
		default:
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			settled, err := r.Settle(ctx, span)
			if err != nil {
				return
			}
			from = settled + 1
		}
		clients = append(clients, m.client(t, span, from))
	}
	for range 400 {
		switch n := rng.IntN(100); {
		case n < 50:
			a := key()
			w.mu.Lock()
			owned := w.owner([]byte(a)).desc.Span
			w.mu.Unlock()
			keys := []string{a}
			for range rng.IntN(3) {
				if b := key(); owned.Contains([]byte(b)) && b != a {
					keys = append(keys, b)
				}
			}
			if rng.IntN(2) == 0 {
				keys = keys[:1]
			}
			w.put(dedupe(keys)...)
		case n < 56:
			w.split(key())
		case n < 60:
			w.merge(key())
		case n < 64:
			w.move(key())
		case n < 70:
			w.elect(key(), rng.IntN(3) > 0)
		case n < 75:
			w.cutFeed()
		case n < 77 && compactions:
			w.compact(shard.Revision(rng.Int64N(int64(w.Seen()) + 1)))
		case n < 85 && len(clients) < 12:
			open()
		case n < 95 && len(clients) > 0:
			c := clients[rng.IntN(len(clients))]
			if rng.IntN(4) == 0 {
				c.watch.Await(w.Seen())
			}
			c.take(1 + rng.IntN(20))
		default:
			bubble.Pass(time.Duration(rng.IntN(20)) * time.Millisecond)
		}
	}
	w.freeze()
	last := w.Seen()
	for _, c := range clients {
		c.watch.Await(last)
		if c.from > last {
			c.until(last)
			require.NoError(t, c.err)
			require.Less(t, c.through, c.from, "a promise of the future")
			require.Empty(t, c.events)
			continue
		}
		c.until(last)
		if c.err != nil {
			var compacted *shard.CompactedError
			require.ErrorAs(t, c.err, &compacted)
			require.True(t, compactions)
			require.Less(t, max(c.from-1, c.through), compacted.Compacted, "it had all that is gone")
			require.Equal(t, w.changes(c.span, c.from, c.through), transactions(c.events))
			continue
		}
		require.Equal(t, w.changes(c.span, c.from, last), transactions(c.events), "watch of %v from %d", c.span, c.from)
	}
	bubble.Pass(time.Minute) // what was asked for has happened
	closes := w.closed()
	bubble.Pass(time.Minute)
	for _, c := range clients {
		c.take(64)
	}
	require.Equal(t, closes, w.closed(), "nobody waits for anything (W8)")
	m.Close()
	r.Close()
}

func dedupe(keys []string) []string {
	seen := make(map[string]bool)
	var out []string
	for _, k := range keys {
		if !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	return out
}
