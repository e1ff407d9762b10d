package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

func TestWatchesAndLeases(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4", Tick: steadyTick})
	cl := connect(t, c)
	t.Run("merged", func(t *testing.T) { testWatch(t, cl) })
	t.Run("by shard", func(t *testing.T) { testWatchShards(t, cl) })
	t.Run("scan", func(t *testing.T) { testScan(t, cl) })
	t.Run("lease", func(t *testing.T) { testLease(t, cl) })
	t.Run("lock", func(t *testing.T) { testLock(t, cl) })
}

// putAll puts n keys all over the keyspace and returns their revisions.
func putAll(t *testing.T, cl *client.Client, name string, n int) map[string]int64 {
	revs := make(map[string]int64)
	for i := range n {
		key := spread(i%8, fmt.Sprintf("%s/%d", name, i))
		r, err := cl.Put(t.Context(), key, nil)
		require.NoError(t, err)
		revs[key] = r.Revision
	}
	return revs
}

func testWatch(t *testing.T, cl *client.Client) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	now, err := cl.Get(ctx, "", client.WithPrefix(), client.CountOnly())
	require.NoError(t, err)
	want := putAll(t, cl, "watch", 40)
	last := now.Revision
	for changes, err := range cl.Watch(ctx, "", client.WithPrefix(), client.FromRevision(now.Revision+1)) {
		require.NoError(t, err)
		for _, e := range changes.Events {
			require.Greater(t, e.Kv.ModRevision, last, "one order for all shards")
			last = e.Kv.ModRevision
			require.Equal(t, want[string(e.Kv.Key)], e.Kv.ModRevision)
			delete(want, string(e.Kv.Key))
		}
		require.GreaterOrEqual(t, changes.Through, last)
		if len(want) == 0 {
			break
		}
	}
	cancel()
	for _, err := range cl.Watch(ctx, "k") {
		require.ErrorIs(t, err, context.Canceled)
	}
	for _, err := range cl.Watch(t.Context(), "k", client.WithLimit(1)) {
		require.ErrorContains(t, err, "WithLimit means nothing to a watch")
	}
	for _, err := range cl.Watch(t.Context(), "k", client.FromRevision(-1)) {
		require.ErrorContains(t, err, "FromRevision(-1): revisions are positive")
	}
	for _, err := range cl.WatchShards(t.Context(), &client.Position{}, "k", client.FromRevision(-1)) {
		require.ErrorContains(t, err, "FromRevision(-1): revisions are positive")
	}
	for _, err := range cl.WatchShards(t.Context(), nil, "k") {
		require.ErrorContains(t, err, "where is nil")
	}
}

// A watch by shard is resumed where it was, by what was stored of it.
func testWatchShards(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	now, err := cl.Get(ctx, "", client.WithPrefix(), client.CountOnly())
	require.NoError(t, err)
	where := &client.Position{Format: 1, Parts: []client.Part{{Start: []byte{0}, Through: now.Revision}}}
	want := make(map[string]int64)
	for round := range 3 {
		last := make(map[int]int64)
		for key, rev := range putAll(t, cl, fmt.Sprintf("shards/%d", round), 24) {
			want[key] = rev
		}
		for changes, err := range cl.WatchShards(ctx, where, "", client.WithPrefix(), client.WithPrevious()) {
			require.NoError(t, err)
			for _, e := range changes.Events {
				require.Greater(t, e.Kv.ModRevision, last[changes.Part])
				last[changes.Part] = e.Kv.ModRevision
				require.Equal(t, want[string(e.Kv.Key)], e.Kv.ModRevision, "not wanted, or a second time")
				delete(want, string(e.Kv.Key))
			}
			if len(want) == 0 {
				break
			}
		}
		stored, err := json.Marshal(where)
		require.NoError(t, err)
		where, err = client.ParsePosition(stored)
		require.NoError(t, err)
	}

	from, err := cl.Get(ctx, "", client.WithPrefix(), client.CountOnly())
	require.NoError(t, err)
	where = &client.Position{}
	putAll(t, cl, "parts", 8)
	seen := 0
	for changes, err := range cl.WatchShards(ctx, where, "", client.WithPrefix(), client.FromRevision(from.Revision+1)) {
		require.NoError(t, err)
		if seen += len(changes.Events); seen == 8 {
			break
		}
	}
	require.Len(t, where.Parts, 4, "a part for each shard")
}

func TestPositionIsChecked(t *testing.T) {
	golden := `{"format":1,"parts":[{"start":"YQ==","end":"bQ==","through":7},{"start":"bQ==","end":null,"through":9}]}`
	p, err := client.ParsePosition([]byte(golden))
	require.NoError(t, err)
	require.Equal(t, &client.Position{Format: 1, Parts: []client.Part{
		{Start: []byte("a"), End: []byte("m"), Through: 7}, {Start: []byte("m"), Through: 9},
	}}, p)
	written, err := json.Marshal(p)
	require.NoError(t, err)
	require.JSONEq(t, golden, string(written))
	for _, bad := range []string{
		``, `{}`, `{"format":2,"parts":[{"start":"YQ=="}]}`, `{"format":1,"parts":[]}`,
		`{"format":1,"parts":[{"start":"YQ==","end":"YQ=="}]}`, `{"format":1,"parts":[{"start":"YQ==","through":-1}]}`,
		`{"format":1,"parts":[{"start":"YQ==","end":"Yg=="},{"start":"Yw=="}]}`,
	} {
		_, err := client.ParsePosition([]byte(bad))
		require.Error(t, err, bad)
	}
}

func testScan(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	putAll(t, cl, "scan", 64)
	all, err := cl.Get(ctx, "", client.WithPrefix())
	require.NoError(t, err)
	between := time.Now()
	i := 0
	for kv, err := range cl.Scan(ctx, "", client.WithPrefix(), client.AtRevision(all.Revision)) {
		require.NoError(t, err)
		require.Equal(t, all.KVs[i], kv)
		i++
	}
	require.Len(t, all.KVs, i)
	then := func(at time.Time) (kvs []*mvccpb.KeyValue) {
		for kv, err := range cl.Scan(ctx, "", client.WithPrefix(), client.AtTime(at)) {
			require.NoError(t, err)
			kvs = append(kvs, kv)
		}
		return kvs
	}
	require.Equal(t, all.KVs, then(time.Now()), "nothing was written since")
	putAll(t, cl, "scan", 64)
	require.Equal(t, all.KVs, then(between), "as it was then")
	for _, err := range cl.Scan(ctx, "", client.WithPrefix(), client.AtTime(time.Now().Add(time.Hour))) {
		require.ErrorIs(t, err, shard.ErrFutureRevision)
	}
	for range cl.Scan(ctx, "", client.WithPrefix()) {
		break // enough
	}
	for _, err := range cl.Scan(ctx, "", client.WithPrefix(), client.Descending()) {
		require.ErrorContains(t, err, "Descending")
	}
	for _, err := range cl.Scan(ctx, "", client.WithPrefix(), client.AtRevision(1<<52)) {
		require.ErrorIs(t, err, shard.ErrFutureRevision)
	}
}

func testLease(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	lease, err := cl.Grant(ctx, time.Minute)
	require.NoError(t, err)
	for i := range 8 { // most of their shards have not heard of the lease
		_, err := cl.Put(ctx, spread(i, "leased"), nil, client.WithLease(lease))
		require.NoError(t, err)
	}
	_, err = cl.Txn(ctx, nil, []client.Op{client.Put(spread(3, "leased too"), nil, client.WithLease(lease))}, nil)
	require.NoError(t, err)
	ttl, err := cl.Renew(ctx, lease)
	require.NoError(t, err)
	require.Equal(t, time.Minute, ttl)
	require.NoError(t, cl.Revoke(ctx, lease))
	for i := range 8 {
		got, err := cl.Get(ctx, spread(i, "leased"))
		require.NoError(t, err)
		require.Empty(t, got.KVs)
	}
	require.ErrorIs(t, cl.Revoke(ctx, lease), shard.ErrLeaseNotFound)
	_, err = cl.Renew(ctx, lease)
	require.ErrorIs(t, err, shard.ErrLeaseNotFound)
}

// Whoever loses its session loses its lock, and what it does behind its guard.
func testLock(t *testing.T, cl *client.Client) {
	ctx := t.Context()
	one, err := cl.NewSession(ctx, 10*time.Second)
	require.NoError(t, err)
	two, err := cl.NewSession(ctx, 10*time.Second)
	require.NoError(t, err)
	held, err := one.Lock(ctx, "jobs/lock")
	require.NoError(t, err)
	again, err := one.Lock(ctx, "jobs/lock")
	require.NoError(t, err)
	require.Equal(t, held.Token(), again.Token(), "it is held already")

	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = two.Lock(short, "jobs/lock")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	next := make(chan *client.Lock, 1)
	go func() {
		l, err := two.Lock(ctx, "jobs/lock")
		if err != nil {
			t.Errorf("lock: %v", err)
		}
		next <- l
	}()
	work := []client.Op{client.Put("jobs/result", []byte("one's"))}
	done, err := cl.Txn(ctx, []client.Compare{held.Guard()}, work, nil)
	require.NoError(t, err)
	require.True(t, done.Succeeded)
	require.NoError(t, cl.Revoke(ctx, one.Lease())) // it was away for too long
	taken := <-next
	require.Greater(t, taken.Token(), held.Token())
	done, err = cl.Txn(ctx, []client.Compare{held.Guard()}, work, nil)
	require.NoError(t, err)
	require.False(t, done.Succeeded, "the lock is another's")
	require.NoError(t, held.Unlock(ctx), "and stays it")
	done, err = cl.Txn(ctx, []client.Compare{taken.Guard()}, work, nil)
	require.NoError(t, err)
	require.True(t, done.Succeeded)
	<-one.Done() // it has found out
	_, err = one.Lock(ctx, "jobs/lock")
	require.Error(t, err)
	require.NoError(t, taken.Unlock(ctx))
	require.NoError(t, two.Close(ctx))
	require.NoError(t, one.Close(ctx))
}
