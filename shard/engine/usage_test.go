package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// What the estimates say of a span of keys whose sizes are known.
func TestUsageOfASpan(t *testing.T) {
	const keys, valueBytes = 8000, 500
	e, err := Open(storeDir, Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, tune: func(o *pebble.Options) {
		o.TargetFileSizes[0] = 256 << 10 // several tables, as real shards have: estimates are good to a part of one
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	random := rand.New(rand.NewPCG(*seed, 1))
	value := make([]byte, valueBytes)
	for i := range keys {
		for j := range value {
			value[j] = byte(random.Uint32()) // so that it does not compress
		}
		value[flagsByte] = 0
		// Three quarters of the keys have a long common prefix.
		key := fmt.Sprintf("user/%08d", i)
		if i%4 == 3 {
			key = fmt.Sprintf("zone/%08d", i)
		}
		put(t, e, key, 10, string(value))
	}
	empty, err := e.SpanSize(shard.Everything())
	require.NoError(t, err)
	require.Zero(t, empty, "what is only in memory does not count")
	key, _, err := e.SpanMiddle(shard.Everything())
	require.NoError(t, err)
	require.Nil(t, key)
	require.NoError(t, e.db.Flush())

	for _, c := range []struct {
		span  shard.Span
		share float64
		low   string // the middle lies from here
		high  string
	}{
		{shard.Everything(), 1, "user/00004800", "user/00005900"},
		{span("user/", "user0"), 0.75, "user/00003500", "user/00004500"},
		{span("zone/", "zone0"), 0.25, "zone/00003500", "zone/00004500"},
		{span("user/00004000", "user/00006000"), 0.1875, "user/00004800", "user/00005200"},
	} {
		t.Run(c.span.String(), func(t *testing.T) {
			size, err := e.SpanSize(c.span)
			require.NoError(t, err)
			require.InEpsilon(t, c.share*keys*(valueBytes+30), float64(size), 0.15)
			versions, err := e.SpanVersions(c.span)
			require.NoError(t, err)
			require.InEpsilon(t, c.share*keys, float64(versions), 0.15)
			key, left, err := e.SpanMiddle(c.span)
			require.NoError(t, err)
			require.True(t, span(c.low, c.high).Contains(key), "%q", key)
			require.InDelta(t, 0.5, left, 0.1)
		})
	}
	for _, nothing := range []shard.Span{span("a", "b"), span("zone/00000003", "zone/00000004"), span("b", "a")} {
		key, _, err := e.SpanMiddle(nothing)
		require.NoError(t, err)
		require.Nil(t, key, "%s", nothing)
	}
}

// A key between two others is above the one and not above the other, and repeated
// halving comes to an end.
func TestKeysBetween(t *testing.T) {
	random := rand.New(rand.NewPCG(*seed, 2))
	draw := func() []byte {
		key := bytes.Repeat([]byte("p"), random.IntN(3))
		for range random.IntN(12) {
			key = append(key, byte(random.IntN(3)*127))
		}
		return key
	}
	for range 2000 {
		pair := [][]byte{draw(), draw()}
		slices.SortFunc(pair, bytes.Compare)
		low, high := pair[0], pair[1]
		for range 200 {
			middle := between(low, high)
			if middle == nil {
				break
			}
			require.Negative(t, bytes.Compare(low, middle), "%q %q %q", low, middle, high)
			require.Negative(t, bytes.Compare(middle, high), "%q %q %q", low, middle, high)
			if random.IntN(2) == 0 {
				low = middle
			} else {
				high = middle
			}
		}
	}
}
