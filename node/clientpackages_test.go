package node_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/ordering"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// What clientv3 brings along beside its recipes works through several nodes, as long as the keys that are
// changed together are in one shard.
func TestPackagesOfClientv3(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "m"})
	one, two := c.Client(t, c.Node(1)), c.Client(t, c.Node(2))
	ctx := t.Context()

	t.Run("leasing", func(t *testing.T) {
		mine, closeMine, err := leasing.NewKV(one, "leasing/")
		require.NoError(t, err)
		defer closeMine()
		other, closeOther, err := leasing.NewKV(two, "leasing/")
		require.NoError(t, err)
		defer closeOther()
		_, err = mine.Put(ctx, "cached", "1")
		require.NoError(t, err)
		for _, kv := range []clientv3.KV{mine, mine, other} {
			got, err := kv.Get(ctx, "cached")
			require.NoError(t, err)
			require.Equal(t, "1", string(got.Kvs[0].Value))
		}
		_, err = other.Put(ctx, "cached", "2") // it revokes what the other holds
		require.NoError(t, err)
		got, err := mine.Get(ctx, "cached")
		require.NoError(t, err)
		require.Equal(t, "2", string(got.Kvs[0].Value))
		_, err = one.Put(ctx, "zebra", "1") // beyond m: not where the keys of leasing are
		require.NoError(t, err)
		_, err = mine.Put(ctx, "zebra", "2")
		require.ErrorContains(t, err, "txn touches 2 shards")
	})
	t.Run("ordering", func(t *testing.T) {
		violated := 0
		kv := ordering.NewKV(one, func(clientv3.Op, clientv3.OpResponse, int64) error { violated++; return nil })
		for i := range 5 {
			_, err := two.Put(ctx, "ordered", fmt.Sprint(i))
			require.NoError(t, err)
			got, err := kv.Get(ctx, "ordered")
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(got.Kvs[0].Value))
		}
		require.Zero(t, violated)
	})
	t.Run("naming", func(t *testing.T) {
		here, err := endpoints.NewManager(one, "services/a")
		require.NoError(t, err)
		watching, stop := context.WithCancel(ctx)
		defer stop()
		updates, err := here.NewWatchChannel(watching)
		require.NoError(t, err)
		there, err := endpoints.NewManager(two, "services/a")
		require.NoError(t, err)
		require.NoError(t, there.AddEndpoint(ctx, "services/a/1", endpoints.Endpoint{Addr: "10.0.0.1:80"}))
		got := received(t, updates)
		require.Equal(t, "services/a/1", got[0].Key)
		require.Equal(t, "10.0.0.1:80", got[0].Endpoint.Addr)
		require.NoError(t, there.DeleteEndpoint(ctx, "services/a/1"))
		require.Equal(t, endpoints.Delete, received(t, updates)[0].Op)
		list, err := here.List(ctx)
		require.NoError(t, err)
		require.Empty(t, list)
	})
	t.Run("mirror", func(t *testing.T) {
		for _, key := range []string{"copy/a", "copy/b"} {
			_, err := one.Put(ctx, key, "1")
			require.NoError(t, err)
		}
		syncing, stop := context.WithCancel(ctx)
		defer stop()
		s := mirror.NewSyncer(two, "copy/", 0)
		base, failed := s.SyncBase(syncing)
		var keys []string
		for resp := range base {
			for _, kv := range resp.Kvs {
				keys = append(keys, string(kv.Key))
			}
		}
		require.NoError(t, <-failed)
		require.Equal(t, []string{"copy/a", "copy/b"}, keys)
		updates := s.SyncUpdates(syncing)
		_, err := one.Put(ctx, "copy/c", "1")
		require.NoError(t, err)
		require.Equal(t, "copy/c", string(received(t, updates).Events[0].Kv.Key))
	})
}

// received is what comes next, which must not take for ever.
func received[T any](t *testing.T, from <-chan T) (got T) {
	t.Helper()
	testcluster.Eventually(t, "something to come", func(ctx context.Context) error {
		select {
		case next, open := <-from:
			require.True(t, open)
			got = next
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	return got
}
