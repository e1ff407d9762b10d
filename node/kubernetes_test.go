package node_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
)

// TestKubernetesStorage asks what a kube-apiserver asks of etcd, through the client that it uses, with one
// resource in two shards and others elsewhere.
func TestKubernetesStorage(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{
		Splits: "/registry/m,/registry/pods/ns/p3",
		Edit:   func(_ string, cfg *node.Config) { cfg.WatchProgressInterval = 100 * time.Millisecond },
	})
	api := kubernetes.Client{Client: c.Client(t, c.Node(1))}
	other := kubernetes.Client{Client: c.Client(t, c.Node(2))}
	t.Run("objects", func(t *testing.T) { testKubernetesObjects(t, api) })
	t.Run("pages", func(t *testing.T) { testKubernetesPages(t, api, other) })
	t.Run("watch cache", func(t *testing.T) { testKubernetesWatchCache(t, api, other) })
	t.Run("bookmarks", func(t *testing.T) { testKubernetesBookmarks(t, api) })
	t.Run("events", func(t *testing.T) { testKubernetesEvents(t, api) })
	t.Run("compaction", func(t *testing.T) { testKubernetesCompaction(t, api, other) })
}

const pods = "/registry/pods/"

func pod(i int) string { return pods + "ns/p" + strconv.Itoa(i) }

// create makes an object that must not exist, as POST does.
func create(t *testing.T, api kubernetes.Client, key string) int64 {
	t.Helper()
	put, err := api.OptimisticPut(t.Context(), key, []byte(key), 0, kubernetes.PutOptions{})
	require.NoError(t, err)
	require.True(t, put.Succeeded, key)
	return put.Revision
}

// Each object is written only over the version that was seen.
func testKubernetesObjects(t *testing.T, api kubernetes.Client) {
	ctx, key := t.Context(), "/registry/configmaps/ns/a"
	missing, err := api.Get(ctx, key, kubernetes.GetOptions{})
	require.NoError(t, err)
	require.Nil(t, missing.KV)
	created := create(t, api, key)
	again, err := api.OptimisticPut(ctx, key, []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true})
	require.NoError(t, err)
	require.False(t, again.Succeeded)
	require.Equal(t, created, again.KV.ModRevision, "the caller is given what is there")
	updated, err := api.OptimisticPut(ctx, key, []byte("2"), created, kubernetes.PutOptions{GetOnFailure: true})
	require.NoError(t, err)
	require.True(t, updated.Succeeded)
	got, err := api.Get(ctx, key, kubernetes.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, updated.Revision, got.KV.ModRevision, "the version of an object is the revision of its write")
	old, err := api.Get(ctx, key, kubernetes.GetOptions{Revision: created})
	require.NoError(t, err)
	require.Equal(t, key, string(old.KV.Value))
	stale, err := api.OptimisticDelete(ctx, key, created, kubernetes.DeleteOptions{GetOnFailure: true})
	require.NoError(t, err)
	require.False(t, stale.Succeeded)
	require.Equal(t, updated.Revision, stale.KV.ModRevision)
	deleted, err := api.OptimisticDelete(ctx, key, updated.Revision, kubernetes.DeleteOptions{})
	require.NoError(t, err)
	require.True(t, deleted.Succeeded)
	require.Greater(t, deleted.Revision, updated.Revision)
}

// A list in pages is of one revision, whatever is written between them, and tells how many remain.
func testKubernetesPages(t *testing.T, api, other kubernetes.Client) {
	ctx := t.Context()
	for i := range 6 {
		create(t, api, pod(i))
	}
	var keys []string
	page, err := api.List(ctx, pods, kubernetes.ListOptions{Limit: 2})
	require.NoError(t, err)
	at := page.Revision
	for left := int64(6); ; left -= 2 {
		require.Equal(t, left, page.Count)
		for _, kv := range page.Kvs {
			keys = append(keys, string(kv.Key))
		}
		if int64(len(page.Kvs)) == page.Count {
			break
		}
		create(t, other, fmt.Sprintf("%sns/p%d-later", pods, left))
		page, err = api.List(ctx, pods, kubernetes.ListOptions{Limit: 2, Revision: at, Continue: keys[len(keys)-1] + "\x00"})
		require.NoError(t, err)
		require.GreaterOrEqual(t, page.Revision, at)
	}
	require.Equal(t, []string{pod(0), pod(1), pod(2), pod(3), pod(4), pod(5)}, keys)
	count, err := api.Count(ctx, pods, kubernetes.CountOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 8, count)
	_, err = api.List(ctx, pods, kubernetes.ListOptions{Revision: at + 1<<40})
	require.ErrorIs(t, err, rpctypes.ErrFutureRev)

	var streamed []string
	chunks, err := api.GetStream(ctx, pods, clientv3.WithPrefix(), clientv3.WithRev(at))
	require.NoError(t, err)
	for chunk := range chunks {
		require.NoError(t, chunk.Err())
		for _, kv := range chunk.Kvs {
			streamed = append(streamed, string(kv.Key))
		}
	}
	require.Equal(t, keys, streamed)
}

// A consistent list is served from a cache once the watch that feeds it has come to the revision that a read of the
// resource's prefix was told. Then everything that was written before is in the cache, whoever wrote it.
func testKubernetesWatchCache(t *testing.T, api, other kubernetes.Client) {
	list, err := api.List(t.Context(), pods, kubernetes.ListOptions{})
	require.NoError(t, err)
	cache := make(map[string]int64)
	for _, kv := range list.Kvs {
		cache[string(kv.Key)] = kv.ModRevision
	}
	ctx, stop := context.WithCancel(clientv3.WithRequireLeader(t.Context()))
	defer stop()
	changes := api.Watch(ctx, pods, clientv3.WithPrefix(), clientv3.WithRev(list.Revision+1), clientv3.WithPrevKV(), clientv3.WithProgressNotify())
	for round := range 10 {
		key := pod(round % 6) // in either shard
		seen, err := other.Get(t.Context(), key, kubernetes.GetOptions{})
		require.NoError(t, err)
		put, err := other.OptimisticPut(t.Context(), key, []byte{byte(round)}, seen.KV.ModRevision, kubernetes.PutOptions{})
		require.NoError(t, err)
		require.True(t, put.Succeeded)
		create(t, other, fmt.Sprint("/registry/secrets/ns/", round)) // nothing that the watch is told

		now, err := api.KV.Get(t.Context(), pods, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		require.NoError(t, err)
		require.NoError(t, api.RequestProgress(ctx))
		for reached := int64(0); reached < now.Header.Revision; {
			resp := <-changes
			require.NoError(t, resp.Err())
			reached = resp.Header.Revision
			for _, e := range resp.Events {
				require.Equal(t, mvccpb.Event_PUT, e.Type)
				require.Equal(t, cache[string(e.Kv.Key)], e.PrevKv.ModRevision, "a change without what was before is an error there")
				cache[string(e.Kv.Key)] = e.Kv.ModRevision
			}
		}
		require.Equal(t, put.Revision, cache[key])
	}
}

// Who watches what does not change is told from time to time how far it has come.
func testKubernetesBookmarks(t *testing.T, api kubernetes.Client) {
	ctx, stop := context.WithCancel(clientv3.WithRequireLeader(t.Context()))
	defer stop()
	quiet := api.Watch(ctx, "/registry/leases/", clientv3.WithPrefix(), clientv3.WithProgressNotify())
	revision := create(t, api, "/registry/namespaces/a")
	for reached := int64(0); reached < revision; {
		resp := <-quiet
		require.NoError(t, resp.Err())
		require.True(t, resp.IsProgressNotify())
		reached = resp.Header.Revision
	}
}

// Objects that expire share a lease, which is neither renewed nor revoked.
func testKubernetesEvents(t *testing.T, api kubernetes.Client) {
	lease, err := api.Grant(t.Context(), 3600)
	require.NoError(t, err)
	for _, key := range []string{"/registry/events/ns/a", pods + "ns/z"} {
		put, err := api.OptimisticPut(t.Context(), key, nil, 0, kubernetes.PutOptions{LeaseID: lease.ID})
		require.NoError(t, err)
		require.True(t, put.Succeeded)
		got, err := api.Get(t.Context(), key, kubernetes.GetOptions{})
		require.NoError(t, err)
		require.EqualValues(t, lease.ID, got.KV.Lease)
	}
}

// Of all apiservers one compacts, at what it was told when it last did: they agree on it by the version of a key.
func testKubernetesCompaction(t *testing.T, api, other kubernetes.Client) {
	const key = "compact_rev_key"
	ctx := t.Context()
	agree := func(by kubernetes.Client, version, compacted int64) (won bool, now, next int64) {
		resp, err := by.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), "=", version)).
			Then(clientv3.OpPut(key, strconv.FormatInt(compacted, 10))).Else(clientv3.OpGet(key)).Commit()
		require.NoError(t, err)
		if resp.Succeeded {
			return true, resp.Header.Revision, version + 1
		}
		return false, resp.Header.Revision, resp.Responses[0].GetResponseRange().Kvs[0].Version
	}
	won, at, version := agree(api, 0, 0)
	require.True(t, won)
	won, _, seen := agree(other, 0, 0)
	require.False(t, won)
	require.Equal(t, version, seen)
	before, err := api.List(ctx, pods, kubernetes.ListOptions{})
	require.NoError(t, err)
	later := create(t, other, pods+"ns/after")
	won, _, _ = agree(api, version, at)
	require.True(t, won)
	_, err = api.Compact(ctx, at)
	require.NoError(t, err)

	_, err = api.List(ctx, pods, kubernetes.ListOptions{Revision: at - 1})
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	resp := <-api.Watch(ctx, pods, clientv3.WithPrefix(), clientv3.WithRev(at-1))
	require.Equal(t, rpctypes.ErrCompacted, resp.Err())
	list, err := api.List(ctx, pods, kubernetes.ListOptions{Revision: at})
	require.NoError(t, err)
	require.Equal(t, before.Kvs, list.Kvs)
	got, err := api.Get(ctx, pods+"ns/after", kubernetes.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, later, got.KV.ModRevision)
}
