package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// Who waits for a lock goes on waiting when its watch cannot: history was compacted while the node was away.
func TestLockOverACompaction(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	cl, ctx := connect(t, c), t.Context()
	one, err := cl.NewSession(ctx, time.Minute)
	require.NoError(t, err)
	two, err := cl.NewSession(ctx, time.Minute)
	require.NoError(t, err)
	held, err := one.Lock(ctx, "lock")
	require.NoError(t, err)
	next := make(chan error, 1)
	go func() {
		_, err := two.Lock(ctx, "lock")
		next <- err
	}()
	for i := range 3 {
		put, err := cl.Put(ctx, fmt.Sprint("k", i), nil)
		require.NoError(t, err)
		etcd := c.Client(t)
		_, err = etcd.Compact(ctx, put.Revision)
		require.NoError(t, err)
		c.Node(1).Restart(t)
	}
	select {
	case err := <-next:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	require.NoError(t, held.Unlock(ctx))
	require.NoError(t, <-next)
}
