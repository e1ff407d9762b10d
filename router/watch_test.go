package router

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Where a watch begins that is to see what comes from now on: all that was written to its
// span is at or below that, all that comes is above. The shard of a span that lies in one
// need not be closed for it, nor another node be asked.
func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name  string
		span  shard.Span
		split bool // between the look into the cache and the question
		own   bool
	}{
		{"in one shard", shard.Span{Start: []byte("a"), End: []byte("c")}, false, true},
		{"of a key", shard.PointSpan([]byte("a")), false, true},
		{"in one shard, which splits", shard.Span{Start: []byte("a"), End: []byte("c")}, true, false},
		{"over two shards", shard.Span{Start: []byte("a"), End: []byte("z")}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
				put(t, r, "y", "0")
				before := put(t, r, "a", "1")
				w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
					if c.split && req.Op == routerpb.Op_OP_PROBE {
						c.split = false
						w.split("b")
					}
					return nil, nil, false
				}
				w.locked(func() { w.sent = nil })
				at, err := r.Settle(t.Context(), c.span)
				require.NoError(t, err)
				require.GreaterOrEqual(t, at, before)
				if c.own {
					require.Len(t, w.sent, 1)
					require.Equal(t, shard.NodeID(1), w.sent[0].node)
					require.Zero(t, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_CLOSE))
				}
				require.Greater(t, put(t, r, "a", "2"), at)
			})
		})
	}
}

// A compaction is recorded before the shards hear of it. A watch that begins then, of a shard whose
// last write is older, must not begin at what counts as compacted.
func TestSettleDuringACompaction(t *testing.T) {
	for _, span := range []shard.Span{shard.PointSpan([]byte("a")), {Start: []byte("a"), End: []byte("p")}} {
		inWorld(t, []string{"m", "x"}, func(t *testing.T, w *world, r *Router) {
			put(t, r, "a", "1")
			compacted := put(t, r, "y", "1")
			require.NoError(t, w.RecordCompaction(t.Context(), compacted))
			at, err := r.Settle(t.Context(), span)
			require.NoError(t, err)
			require.GreaterOrEqual(t, at, compacted)
			require.Greater(t, put(t, r, "a", "2"), at)
		})
	}
}
