package testcluster_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// A cluster serves, loses a node, gets it back and leaves nothing behind (T1; the
// check is TestMain's).
func TestStartStopRestart(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{})
	client := c.Client(t)
	_, err := client.Put(t.Context(), "k", "v")
	require.NoError(t, err)
	c.Node(3).Restart(t)
	testcluster.Eventually(t, "n3 to serve the key", func(ctx context.Context) error {
		_, err := c.Client(t, c.Node(3)).Get(ctx, "k")
		return err
	})
}
