package node_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// poison makes a replica of a node one that was told to begin without its data, and
// returns when the node runs again.
func poison(t *testing.T, n *testcluster.Node, d *shard.Descriptor) {
	t.Helper()
	own, ok := d.ReplicaOn(id(n))
	require.True(t, ok)
	n.Stop()
	withStore(t, n, func(e *engine.Engine) {
		raw, err := e.Local(d.ID, own.ID, apply.StateKind)
		require.NoError(t, err)
		view, err := apply.UnmarshalState(raw)
		require.NoError(t, err)
		raw, err = apply.MarshalState(shard.View{Applied: view.Applied, Poisoned: true})
		require.NoError(t, err)
		b := e.NewBatch()
		require.NoError(t, b.Set(engine.LocalKey(d.ID, own.ID, apply.StateKind), raw, nil))
		require.NoError(t, e.Commit(b))
		require.NoError(t, b.Close())
	})
	n.Start(t)
	r, ok := n.Inside().Host().Replica(d.ID)
	require.True(t, ok)
	require.True(t, r.View().Poisoned)
}

// withStore does something with the store of a node that is stopped.
func withStore(t *testing.T, n *testcluster.Node, do func(*engine.Engine)) {
	t.Helper()
	e, err := engine.Open(filepath.Join(n.Config().DataDir, "store"), engine.Options{})
	require.NoError(t, err)
	do(e)
	require.NoError(t, e.Sync())
	require.NoError(t, e.Close())
}

// A node whose replica of a shard is poisoned serves the shard's keys all the same, from
// other nodes: it reads, sums up and watches there, and never leads.
func TestPoisonedReplicaIsPassedOver(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Splits: "m"})
	put(t, c.Client(t), "a", "1")
	put(t, c.Client(t), "z", "1")
	ill := c.Node(3)
	poison(t, ill, ill.Inside().Map().Lookup([]byte("a")))

	want := hashKV(t, c, c.Node(1), 0)
	require.Equal(t, want.Hash, hashKV(t, c, ill, want.HashRevision).Hash)
	client := c.Client(t, ill)
	requireValue(t, client, "a", "1")
	resp, err := client.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithSerializable())
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 2)
	watch := client.Watch(t.Context(), "a", clientv3.WithRev(1))
	rev := put(t, client, "a", "2")
	testcluster.Eventually(t, "the watch to tell of the put", func(ctx context.Context) error {
		select {
		case got := <-watch:
			if len(got.Events) > 0 && got.Events[len(got.Events)-1].Kv.ModRevision == rev {
				return nil
			}
			return fmt.Errorf("it told of %v, error %v", got.Events, got.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}
