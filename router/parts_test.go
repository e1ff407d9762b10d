package router

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// T5: places are looked up one after the other. Where a boundary has moved between two looks
// the second one reaches back into the first: no key is in two parts, and each is in one.
func TestPartsWhereABoundaryMoved(t *testing.T) {
	inWorld(t, []string{"c"}, func(t *testing.T, w *world, r *Router) {
		put(t, r, "d", "1")
		put(t, r, "a", "1")
		last := put(t, r, "z", "1")
		first, second := w.owner("a").now(), w.owner("d").now()
		left, right := *first.Descriptor, *second.Descriptor
		left.Span.End = []byte("m") // as it was before

		r.cfg.Cache = NewCache(&fixedDirectory{descriptors: []*shard.Descriptor{first.Descriptor, &right}}, 10)
		r.cfg.Cache.Learn(&left)
		var mu sync.Mutex
		var parts []shard.Span
		err := r.everywhere(t.Context(), []shard.Span{{}}, func(_ Place, _ int, part shard.Span) error {
			mu.Lock()
			defer mu.Unlock()
			parts = append(parts, part)
			return nil
		})
		require.NoError(t, err)
		slices.SortFunc(parts, func(a, b shard.Span) int { return strings.Compare(string(a.Start), string(b.Start)) })
		require.Empty(t, parts[0].Start)
		for i, part := range parts[1:] {
			require.Equal(t, parts[i].End, part.Start, "%v", parts)
		}
		require.Empty(t, parts[len(parts)-1].End)

		c := cut{at: last, header: last, revs: []shard.Revision{first.Rev, second.Rev}, loose: true, places: []Place{{Descriptor: &left}, {Descriptor: &right}}}
		got, err := r.fetchParallel(t.Context(), c, listing.FetchOptions{})
		require.NoError(t, err)
		require.EqualValues(t, 3, got.Count)
		require.Len(t, got.KVs, 3)
	})
}

// T10: when one part of a list has failed, the others are read no further. They would only take room.
func TestTheOtherPartsOfAFailedListEnd(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		const keys = 50
		put(t, r, "a", "1")
		for i := range keys {
			put(t, r, fmt.Sprintf("z%02d", i), "1")
		}
		c := cut{loose: true}
		for _, key := range []string{"a", "z"} {
			v := w.owner(key).now()
			c.at, c.header = max(c.at, v.Rev), max(c.header, v.Rev)
			c.revs, c.places = append(c.revs, v.Rev), append(c.places, Place{Descriptor: v.Descriptor})
		}
		fails, pieces := false, 0
		w.locked(func() {
			w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
				switch {
				case req.Op != routerpb.Op_OP_FETCH:
				case string(req.Message.(*pb.RangeRequest).Key) >= "m":
					pieces++
					req.Bytes = 1 // a pair
				case fails:
					return nil, admission.ErrTurn, true
				}
				return nil, nil, false
			}
		})
		got, err := r.fetchParallel(t.Context(), c, listing.FetchOptions{})
		require.NoError(t, err)
		require.Len(t, got.KVs, 1+keys)
		require.GreaterOrEqual(t, pieces, keys)
		w.locked(func() { fails, pieces, w.delayed = true, 0, true })
		_, err = r.fetchParallel(t.Context(), c, listing.FetchOptions{})
		require.ErrorIs(t, err, admission.ErrTurn)
		require.Less(t, pieces, keys/2)
	})
}
