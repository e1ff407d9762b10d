package watchmerge

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

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
