package client

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// oneShard is a directory of one shard with all keys.
type oneShard struct{}

func (oneShard) Lookup(context.Context, []byte) (*shard.Descriptor, error) {
	return &shard.Descriptor{ID: 1, Epoch: 1, Span: shard.Everything()}, nil
}

// The first lookup knows nothing; the second one finds what the first has learned.
func TestMissesOfTheCacheAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	require.NoError(t, err)
	cache := router.NewCache(m.counted(oneShard{}), 2)
	seen := 0
	for range 2 {
		_, err := cache.Lookup(t.Context(), []byte("k"))
		require.NoError(t, err)
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "flotilla_client_cache_misses_total" {
				require.InDelta(t, 1, f.Metric[0].GetCounter().GetValue(), 0)
				seen++
			}
		}
	}
	require.Equal(t, 2, seen)
}
