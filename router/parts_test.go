package router

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

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
