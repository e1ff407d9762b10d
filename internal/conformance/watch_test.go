package conformance_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/conformance"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

const watchRecording = "testdata/watch/stream.txt"

func requireWatches(t *testing.T, got string) {
	t.Helper()
	want, err := os.ReadFile(watchRecording)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// TestWatches has a Flotilla of one shard send over a watch stream what etcd did, also
// through a node that does not lead the shard.
func TestWatches(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			c := testcluster.Start(t, testcluster.Options{Nodes: nodes})
			got, err := conformance.Watches(t.Context(), outsider(t, c).ClientAddr())
			require.NoError(t, err)
			requireWatches(t, got)
		})
	}
}
