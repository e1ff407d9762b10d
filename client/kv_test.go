package client_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/txn"
)

func TestKV(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8", Tick: steadyTick})
	cl := connect(t, c)
	t.Run("one key", func(t *testing.T) { testOneKey(t, cl) })
	t.Run("spans and snapshots", func(t *testing.T) { testSpans(t, cl) })
	t.Run("the lease of a put", func(t *testing.T) { testLeaseOfAPut(t, cl) })
	t.Run("transactions", func(t *testing.T) { testTransactions(t, cl) })
	t.Run("compares", func(t *testing.T) { testCompares(t, cl) })
	t.Run("batches", func(t *testing.T) { testBatches(t, cl) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, cl) })
	t.Run("started", func(t *testing.T) { testStarted(t, cl) })
}

func testOneKey(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	key := spread(3, "one")
	first, err := cl.Put(ctx, key, []byte("v1"))
	require.NoError(t, err)
	second, err := cl.Put(ctx, key, []byte("v2"), client.WithPrevious())
	require.NoError(t, err)
	require.Greater(t, second.Revision, first.Revision)
	require.Equal(t, "v1", string(second.Previous[0].Value))
	got, err := cl.Get(ctx, key)
	require.NoError(t, err)
	require.Equal(t, "v2", string(got.KV().Value))
	require.Equal(t, second.Revision, got.KV().ModRevision)
	old, err := cl.Get(ctx, key, client.AtRevision(first.Revision))
	require.NoError(t, err)
	require.Equal(t, "v1", string(old.KV().Value))
	deleted, err := cl.Delete(ctx, key, client.WithPrevious())
	require.NoError(t, err)
	require.Equal(t, int64(1), deleted.Deleted)
	require.Equal(t, "v2", string(deleted.Previous[0].Value))
	got, err = cl.Get(ctx, key, client.Serializable())
	require.NoError(t, err)
	require.Less(t, len(got.KVs), 2)
	got, err = cl.Get(ctx, key)
	require.NoError(t, err)
	require.Nil(t, got.KV())
}

func testSpans(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	for i := range 8 {
		_, err := cl.Put(ctx, spread(i, "span"), []byte("v1"))
		require.NoError(t, err)
	}
	before, err := cl.Get(ctx, "", client.WithPrefix())
	require.NoError(t, err)
	require.Len(t, before.KVs, 8)
	between := time.Now()
	for i := range 8 {
		_, err := cl.Put(ctx, spread(i, "span"), []byte("v2"))
		require.NoError(t, err)
	}
	at, err := cl.Get(ctx, "", client.WithPrefix(), client.AtRevision(before.Revision))
	require.NoError(t, err)
	require.Equal(t, before.KVs, at.KVs, "the same cut, read again")
	at, err = cl.Get(ctx, "", client.WithPrefix(), client.AtTime(between))
	require.NoError(t, err)
	require.Equal(t, before.KVs, at.KVs, "the store as it was then")
	now, err := cl.Get(ctx, spread(0, ""), client.WithRange(spread(4, "")), client.AtTime(time.Now()), client.Descending(), client.WithLimit(3))
	require.NoError(t, err)
	require.Len(t, now.KVs, 3)
	require.True(t, now.More)
	require.Equal(t, int64(4), now.Count)
	require.Equal(t, spread(3, "span"), string(now.KVs[0].Key))
	require.Equal(t, "v2", string(now.KVs[0].Value))
	_, err = cl.Get(ctx, "", client.WithPrefix(), client.AtTime(time.Now().Add(time.Hour)))
	require.ErrorIs(t, err, shard.ErrFutureRevision)
	rest, err := cl.Get(ctx, spread(5, ""), client.WithFromKey(), client.KeysOnly())
	require.NoError(t, err)
	require.Len(t, rest.KVs, 3)
	require.Equal(t, spread(7, "span"), string(rest.KVs[2].Key))
	require.Empty(t, rest.KVs[2].Value)
	gone, err := cl.Delete(ctx, "", client.WithPrefix())
	require.NoError(t, err)
	require.Equal(t, int64(8), gone.Deleted)
}

func testLeaseOfAPut(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	key := spread(6, "lease")
	lease, err := cl.Grant(ctx, time.Minute)
	require.NoError(t, err)
	_, err = cl.Put(ctx, key, []byte("v1"), client.WithLease(lease))
	require.NoError(t, err)
	_, err = cl.Put(ctx, key, []byte("v2"), client.WithSameLease())
	require.NoError(t, err)
	got, err := cl.Get(ctx, key)
	require.NoError(t, err)
	require.Equal(t, lease, got.KV().Lease)
	require.NoError(t, cl.Revoke(ctx, lease))
	got, err = cl.Get(ctx, key)
	require.NoError(t, err)
	require.Nil(t, got.KV())
}

func testTransactions(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	key := spread(5, "txn")
	write := client.Txn([]client.Compare{client.IfCreated(key, client.Equal, 0)},
		[]client.Op{client.Put(key, []byte("mine"))}, []client.Op{client.Get(key)})
	done, err := cl.Do(ctx, write)
	require.NoError(t, err)
	require.True(t, done.Succeeded)
	again, err := cl.Do(ctx, write)
	require.NoError(t, err)
	require.False(t, again.Succeeded)
	require.Equal(t, "mine", string(again.Results[0].KV().Value))
	require.Equal(t, done.Revision, again.Results[0].KV().ModRevision)

	_, err = cl.Txn(ctx, nil, []client.Op{client.Put(spread(1, "a"), nil), client.Put(spread(2, "b"), nil)}, nil)
	var cross *txn.CrossShardError
	require.ErrorAs(t, err, &cross)
	require.Len(t, cross.Places, 2)
	read := []client.Op{client.Get(key, client.AtTime(time.Now()))}
	_, err = cl.Txn(ctx, nil, read, nil)
	require.ErrorContains(t, err, "operation 0")
	_, err = cl.Do(ctx, read[0])
	require.NoError(t, err, "by itself it is as good as before")
}

// Each compare looks at what its name says, and a key that does not exist has 0 of everything,
// and no value at all.
func testCompares(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	key := spread(2, "compared")
	created, err := cl.Put(ctx, key, []byte("b"))
	require.NoError(t, err)
	modified, err := cl.Put(ctx, key, []byte("b"))
	require.NoError(t, err)
	gone := spread(2, "gone")
	for _, c := range []struct {
		name    string
		compare client.Compare
		holds   bool
	}{
		{"value", client.IfValue(key, client.Equal, []byte("b")), true},
		{"another value", client.IfValue(key, client.NotEqual, []byte("b")), false},
		{"a value below", client.IfValue(key, client.Less, []byte("c")), true},
		{"modified", client.IfModified(key, client.Equal, modified.Revision), true},
		{"modified since", client.IfModified(key, client.Greater, created.Revision), true},
		{"created", client.IfCreated(key, client.Equal, created.Revision), true},
		{"created since", client.IfCreated(key, client.Greater, created.Revision), false},
		{"version", client.IfVersion(key, client.Equal, 2), true},
		{"version below", client.IfVersion(key, client.Less, 2), false},
		{"nothing modified", client.IfModified(gone, client.Equal, 0), true},
		{"nothing of a version", client.IfVersion(gone, client.Equal, 0), true},
		{"no value is none", client.IfValue(gone, client.Equal, nil), false},
		{"no value is no other", client.IfValue(gone, client.NotEqual, []byte("b")), false},
	} {
		result, err := cl.Txn(ctx, []client.Compare{c.compare}, []client.Op{client.Get(key)}, nil)
		require.NoError(t, err, c.name)
		require.Equal(t, c.holds, result.Succeeded, c.name)
	}
}

func testBatches(t *testing.T, cl *client.Client) {
	const n = 3000
	ops := make([]client.Op, n)
	for i := range ops {
		ops[i] = client.Put(spread(i%8, fmt.Sprintf("batch/%d", i)), []byte(fmt.Sprint(i)))
	}
	ops[7] = client.Put("", nil)
	out := cl.Batch(t.Context(), ops...)
	require.Len(t, out, n)
	seen := make(map[int64]bool)
	for i, o := range out {
		if i == 7 {
			require.ErrorIs(t, o.Err, rpctypes.ErrGRPCEmptyKey)
			continue
		}
		require.NoError(t, o.Err, "operation %d", i)
		require.False(t, seen[o.Result.Revision], "a revision is one write's")
		seen[o.Result.Revision] = true
	}
	for i := range ops {
		ops[i] = client.Get(spread(i%8, fmt.Sprintf("batch/%d", i)))
	}
	for i, o := range cl.Batch(t.Context(), ops...) {
		require.NoError(t, o.Err)
		if i != 7 {
			require.Equal(t, fmt.Sprint(i), string(o.Result.KV().Value))
			require.Equal(t, out[i].Result.Revision, o.Result.KV().ModRevision)
		}
	}
	require.Empty(t, cl.Batch(t.Context()))
}

func testRefusals(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	key := spread(2, "refused")
	for _, size := range []int{1536 * 1024, 3 << 20, 100 << 20} {
		_, err := cl.Put(ctx, key, make([]byte, size))
		require.ErrorIs(t, err, rpctypes.ErrGRPCRequestTooLarge, "%d bytes", size)
	}
	_, err := cl.Put(ctx, key, make([]byte, 1500*1024))
	require.NoError(t, err, "what etcd takes")
	_, err = cl.Put(ctx, key, nil, client.WithLease(77))
	require.ErrorIs(t, err, shard.ErrLeaseNotFound)
	_, err = cl.Put(ctx, key, nil, client.WithLimit(1))
	require.ErrorContains(t, err, "WithLimit means nothing to a put")
	_, err = cl.Do(ctx, client.Op{})
	require.Error(t, err)
	_, err = cl.Get(ctx, key, client.AtRevision(-1))
	require.ErrorContains(t, err, "AtRevision(-1): revisions are positive")
	_, err = cl.Get(ctx, key, client.AtRevision(1<<52))
	require.ErrorIs(t, err, shard.ErrFutureRevision)

	passed, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer cancel()
	_, err = cl.Put(passed, key, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var unknown *client.UnknownOutcomeError
	require.NotErrorAs(t, err, &unknown, "it was not sent")
	for _, o := range cl.Batch(passed, client.Put(key, nil), client.Get(key)) {
		require.ErrorIs(t, o.Err, context.DeadlineExceeded)
	}
}

func testStarted(t *testing.T, cl *client.Client) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Add(1)
		key := spread(i%8, fmt.Sprintf("go/%d", i))
		cl.Go(ctx, client.Put(key, nil), func(r client.Result, err error) {
			if err != nil {
				t.Errorf("put: %v", err)
				wg.Done()
				return
			}
			cl.Go(ctx, client.Get(key), func(got client.Result, err error) {
				defer wg.Done()
				if err != nil || got.KV() == nil || got.KV().ModRevision != r.Revision {
					t.Errorf("get after put at %d: %v, %v", r.Revision, got.KV(), err)
				}
			})
		})
	}
	wg.Wait()
}
