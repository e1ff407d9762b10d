package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// Who waits for a lock goes on waiting when its watch cannot: history was compacted while the node was away.
func TestLockOverACompaction(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	registry := prometheus.NewRegistry()
	cl, ctx := connect(t, c, func(cfg *client.Config) { cfg.Registerer = registry }), t.Context()
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
	testcluster.Until(t, "the second to have asked for it", func() bool { return endedTxns(t, registry) == 2 }) // that is not to be cut off
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

// endedTxns is how many transactions of a client have ended.
func endedTxns(t *testing.T, of prometheus.Gatherer) (n float64) {
	t.Helper()
	families, err := of.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "flotilla_client_operations_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "op" && l.GetValue() == "txn" {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}
