package watchmerge

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

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
