package etcd_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/client/etcd"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is written for etcd's client works on this one.
func TestEtcdPrograms(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Splits: "b,f,m,t", Tick: 350 * time.Millisecond})
	cli, err := etcd.New(client.Config{Endpoints: c.Endpoints()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cli.Close()) })
	plain := c.Client(t)
	t.Run("kv", func(t *testing.T) { testKV(t, cli, plain) })
	t.Run("concurrency", func(t *testing.T) { testConcurrency(t, cli) })
	t.Run("namespace", func(t *testing.T) { testNamespace(t, cli, plain) })
	t.Run("mirror", func(t *testing.T) { testMirror(t, cli) })
	t.Run("errors", func(t *testing.T) { testErrors(t, cli) })
}

// A closed client ends what it has not sent as etcd's does: it says nothing of a write that it
// does not know.
func TestClosed(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	cli, err := etcd.New(client.Config{Endpoints: c.Endpoints()})
	require.NoError(t, err)
	ctx := t.Context()
	_, err = cli.Put(ctx, "k", "v")
	require.NoError(t, err)
	require.NoError(t, cli.Close())
	_, put := cli.Put(ctx, "k", "v")
	_, get := cli.Get(ctx, "k")
	_, del := cli.Delete(ctx, "k")
	_, txn := cli.Txn(ctx).Then(clientv3.OpPut("k", "v")).Commit()
	_, compact := cli.Compact(ctx, 2)
	for i, err := range []error{put, get, del, txn, compact} {
		require.Equal(t, codes.Canceled, status.Code(err), "%d: %v", i, err)
	}
}

// Both clients see the same store, and answers that differ in nothing but who answered.
func testKV(t *testing.T, cli, plain *clientv3.Client) {
	ctx := t.Context()
	put, err := cli.Put(ctx, "a/1", "v1")
	require.NoError(t, err)
	_, err = plain.Put(ctx, "z/1", "v1")
	require.NoError(t, err)
	for _, get := range []struct {
		key     string
		options []clientv3.OpOption
	}{
		{"a/1", nil},
		{"a", []clientv3.OpOption{clientv3.WithFromKey()}},
		{"", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1)}},
		{"a", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCountOnly()}},
		{"a/1", []clientv3.OpOption{clientv3.WithRev(put.Header.Revision), clientv3.WithKeysOnly()}},
	} {
		ours, err := cli.Get(ctx, get.key, get.options...)
		require.NoError(t, err)
		theirs, err := plain.Get(ctx, get.key, get.options...)
		require.NoError(t, err)
		require.Equal(t, theirs.Kvs, ours.Kvs)
		require.Equal(t, theirs.Count, ours.Count)
		require.Equal(t, theirs.More, ours.More)
		require.Equal(t, theirs.Header.Revision, ours.Header.Revision)
		require.Equal(t, theirs.Header.ClusterId, ours.Header.ClusterId)
	}
	var streamed []string
	chunks, err := cli.GetStream(ctx, "", clientv3.WithPrefix())
	require.NoError(t, err)
	for chunk := range chunks {
		require.NoError(t, chunk.Err())
		for _, kv := range chunk.Kvs {
			streamed = append(streamed, string(kv.Key))
		}
	}
	require.Equal(t, []string{"a/1", "z/1"}, streamed)

	lease, err := cli.Grant(ctx, 60)
	require.NoError(t, err)
	_, err = cli.Put(ctx, "k/leased", "v", clientv3.WithLease(lease.ID)) // its shard has not heard of it
	require.NoError(t, err)
	_, err = cli.Put(ctx, "k/leased too", "v", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	_, err = cli.Revoke(ctx, lease.ID)
	require.NoError(t, err)
	got, err := cli.Get(ctx, "k/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Empty(t, got.Kvs)

	del, err := cli.Delete(ctx, "", clientv3.WithPrefix(), clientv3.WithPrevKV())
	require.NoError(t, err)
	require.Len(t, del.PrevKvs, 2)
	_, err = cli.Compact(ctx, del.Header.Revision)
	require.NoError(t, err)
	_, err = cli.Get(ctx, "a/1", clientv3.WithRev(put.Header.Revision))
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
}

func testConcurrency(t *testing.T, cli *clientv3.Client) {
	ctx := t.Context()
	one, err := concurrency.NewSession(cli, concurrency.WithTTL(10))
	require.NoError(t, err)
	two, err := concurrency.NewSession(cli, concurrency.WithTTL(10))
	require.NoError(t, err)
	first, second := concurrency.NewMutex(one, "locks/job"), concurrency.NewMutex(two, "locks/job")
	require.NoError(t, first.Lock(ctx))
	require.ErrorIs(t, second.TryLock(ctx), concurrency.ErrLocked)
	locked := make(chan error, 1)
	go func() { locked <- second.Lock(ctx) }()
	require.NoError(t, one.Close()) // whoever loses the session loses the lock
	require.NoError(t, <-locked)
	require.NoError(t, two.Close())

	_, err = concurrency.NewSTM(cli, func(s concurrency.STM) error {
		s.Put("counters/a", s.Get("counters/a")+"x")
		return nil
	})
	require.NoError(t, err)
	got, err := cli.Get(ctx, "counters/a")
	require.NoError(t, err)
	require.Equal(t, "x", string(got.Kvs[0].Value))
}

func testNamespace(t *testing.T, cli, plain *clientv3.Client) {
	ctx := t.Context()
	kv, watcher := namespace.NewKV(cli.KV, "tenant/"), namespace.NewWatcher(cli.Watcher, "tenant/")
	put, err := kv.Put(ctx, "k", "v")
	require.NoError(t, err)
	got, err := plain.Get(ctx, "tenant/k")
	require.NoError(t, err)
	require.Len(t, got.Kvs, 1)
	events := watcher.Watch(ctx, "k", clientv3.WithRev(put.Header.Revision))
	require.Equal(t, "k", string((<-events).Events[0].Kv.Key))
}

func testMirror(t *testing.T, cli *clientv3.Client) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 50 {
		_, err := cli.Put(ctx, fmt.Sprintf("%cmirrored/%d", 'a'+i%26, i), "v")
		require.NoError(t, err)
	}
	// Left to itself the syncer begins at the revision that a read of one key tells, which
	// speaks of that key's shard: the rest would come as updates.
	all, err := cli.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	syncer := mirror.NewSyncer(cli, "", all.Header.Revision)
	pages, errs := syncer.SyncBase(ctx)
	n := 0
	for page := range pages {
		for _, kv := range page.Kvs {
			if strings.Contains(string(kv.Key), "mirrored") {
				n++
			}
		}
	}
	require.NoError(t, <-errs)
	require.Equal(t, 50, n)
	updates := syncer.SyncUpdates(ctx)
	_, err = cli.Put(ctx, "amirrored/late", "v")
	require.NoError(t, err)
	require.Equal(t, "amirrored/late", string((<-updates).Events[0].Kv.Key))
}

func testErrors(t *testing.T, cli *clientv3.Client) {
	ctx := t.Context()
	_, err := cli.Put(ctx, "", "v")
	require.ErrorIs(t, err, rpctypes.ErrEmptyKey)
	_, err = cli.Put(ctx, "k", strings.Repeat("x", 3<<20))
	require.ErrorIs(t, err, rpctypes.ErrRequestTooLarge)
	_, err = cli.Get(ctx, "k", clientv3.WithRev(1<<52))
	require.ErrorIs(t, err, rpctypes.ErrFutureRev)
	_, err = cli.Put(ctx, "k", "v", clientv3.WithLease(77))
	require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
	_, err = cli.Txn(ctx).Then(clientv3.OpPut("a", ""), clientv3.OpPut("z", "")).Commit()
	require.ErrorContains(t, err, "shard")
	passed, cancel := context.WithTimeout(ctx, -time.Second)
	defer cancel()
	_, err = cli.Put(passed, "k", "v")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
