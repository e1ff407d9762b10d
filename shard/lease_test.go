package shard_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

func TestHomeKeysArePermanent(t *testing.T) {
	require.Equal(t, []byte{0x56, 0x92, 0x16, 0x1d, 0x10, 0x0b, 0x05, 0xe5}, shard.HomeKey(1))
	for _, id := range []int64{0, 1, 2, 7, -1, math.MaxInt64, math.MinInt64, 7587874563242342} {
		got, ok := shard.LeaseAt(shard.HomeKey(id))
		require.True(t, ok)
		require.Equal(t, id, got)
	}
	_, ok := shard.LeaseAt([]byte("seven b"))
	require.False(t, ok)
}

// IDs that count up, as people choose them, must not all live in one shard.
func TestHomeKeysSpread(t *testing.T) {
	var quarters [4]int
	for id := int64(1); id <= 4000; id++ {
		quarters[shard.HomeKey(id)[0]>>6]++
	}
	for _, n := range quarters {
		require.InDelta(t, 1000, n, 150)
	}
}
