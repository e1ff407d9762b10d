package node_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// A store that was written to in small pieces is brought together once clients read from it what caches do not have.
func TestStoreIsCompactedForReads(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	n := c.Node(1)
	for i := range 6 { // each stop writes a table
		for k := range 20 {
			put(t, c.Client(t), fmt.Sprintf("k/%02d", k), fmt.Sprint(i))
		}
		n.Restart(t)
	}
	client, asked := c.Client(t), 0
	testcluster.Until(t, "a compaction for reads", func() bool {
		for range 500 { // keys that were never asked for, because the answer to those is remembered
			asked++
			resp, err := client.Get(t.Context(), fmt.Sprintf("k/10/%d", asked))
			require.NoError(t, err)
			require.Empty(t, resp.Kvs)
		}
		return strings.Contains(metricsOf(t, n), "flotilla_store_read_compactions_total 1")
	})
	for k := range 20 {
		requireValue(t, client, fmt.Sprintf("k/%02d", k), "5")
	}
}
