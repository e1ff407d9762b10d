package node_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

// Every node serves every key, wherever its shard is led.
func TestKVThroughEveryNode(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	for _, n := range c.Nodes() {
		t.Run(n.Name, func(t *testing.T) { testKV(t, c.Client(t, n), n.Name) })
	}
	t.Run("exact cuts while writers run", func(t *testing.T) { testExactCuts(t, c) })
}

func testKV(t *testing.T, client *clientv3.Client, name string) {
	ctx := t.Context()
	var revs []int64
	for i := range 8 {
		resp, err := client.Put(ctx, spread(i, name), "v1")
		require.NoError(t, err)
		revs = append(revs, resp.Header.Revision)
		got, err := client.Get(ctx, spread(i, name))
		require.NoError(t, err)
		require.Len(t, got.Kvs, 1)
		require.Equal(t, "v1", string(got.Kvs[0].Value))
		require.Equal(t, resp.Header.Revision, got.Kvs[0].ModRevision)
	}
	require.IsIncreasing(t, revs, "one node's writes are in order, whatever their shards")

	key := spread(3, name)
	txn, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revs[3])).
		Then(clientv3.OpPut(key, "v2"), clientv3.OpGet(key)).Else(clientv3.OpGet(key)).Commit()
	require.NoError(t, err)
	require.True(t, txn.Succeeded)
	require.Equal(t, "v2", string(txn.Responses[1].GetResponseRange().Kvs[0].Value))

	_, err = client.Txn(ctx).Then(clientv3.OpPut(spread(0, name), "x"), clientv3.OpPut(spread(7, name), "x")).Commit()
	require.ErrorContains(t, err, "shard", "a transaction over shards is refused and says so")

	all, from := everything()
	resp, err := client.Get(ctx, all, from, clientv3.WithLimit(5))
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 5)
	require.True(t, resp.More)
	require.GreaterOrEqual(t, resp.Count, int64(8))

	del, err := client.Delete(ctx, spread(1, name), clientv3.WithRange(spread(6, name)))
	require.NoError(t, err)
	require.GreaterOrEqual(t, del.Deleted, int64(5))
	old, err := client.Get(ctx, key, clientv3.WithRev(revs[7]))
	require.NoError(t, err)
	require.Equal(t, "v1", string(old.Kvs[0].Value), "history stays readable")

	_, err = client.Compact(ctx, del.Header.Revision)
	require.NoError(t, err)
	_, err = client.Get(ctx, key, clientv3.WithRev(revs[7]))
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	_, err = client.Compact(ctx, del.Header.Revision)
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	_, err = client.Get(ctx, key, clientv3.WithRev(1<<52))
	require.ErrorIs(t, err, rpctypes.ErrFutureRev)
}

// Each writer counts first in one shard, then in another. A range over both that is an
// exact cut never sees the second ahead of the first, and reads the same again at its
// revision later.
func testExactCuts(t *testing.T, c *testcluster.Cluster) {
	const writers, rounds, cuts = 3, 60, 25
	ctx := t.Context()
	first := func(w int) string { return spread(2*w, fmt.Sprintf("cut/%d/first", w)) }
	second := func(w int) string { return spread(2*w+1, fmt.Sprintf("cut/%d/second", w)) }
	var wg sync.WaitGroup
	for w := range writers {
		client := c.Client(t, c.Node(w+1))
		wg.Go(func() {
			for i := range rounds {
				for _, key := range []string{first(w), second(w)} {
					if _, err := client.Put(ctx, key, strconv.Itoa(i)); err != nil {
						t.Errorf("put %q: %v", key, err)
						return
					}
				}
			}
		})
	}
	type seen struct {
		rev    int64
		values map[string]string
	}
	read := func(client *clientv3.Client, opts ...clientv3.OpOption) seen {
		all, from := everything()
		resp, err := client.Get(ctx, all, append(opts, from)...)
		require.NoError(t, err)
		s := seen{resp.Header.Revision, make(map[string]string)}
		for _, kv := range resp.Kvs {
			s.values[string(kv.Key)] = string(kv.Value)
		}
		return s
	}
	reader := c.Client(t, c.Node(1))
	var history []seen
	for range cuts {
		s := read(reader)
		for w := range writers {
			require.GreaterOrEqual(t, number(s.values[first(w)]), number(s.values[second(w)]), "writer %d at revision %d", w, s.rev)
		}
		history = append(history, s)
	}
	wg.Wait()
	again := c.Client(t, c.Node(2))
	for i, s := range history {
		if i > 0 {
			require.GreaterOrEqual(t, s.rev, history[i-1].rev)
		}
		require.Equal(t, s.values, read(again, clientv3.WithRev(s.rev)).values, "the cut at revision %d read again", s.rev)
	}
}

// number is a count that was read, -1 if there is none yet.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// put waits until a put through the client works and returns its revision.
func put(t *testing.T, client *clientv3.Client, key, value string) int64 {
	t.Helper()
	var rev int64
	testcluster.Eventually(t, "a put of "+strconv.Quote(key), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		resp, err := client.Put(ctx, key, value)
		if err != nil {
			return err
		}
		rev = resp.Header.Revision
		return nil
	})
	return rev
}

// requireValue waits until the client reads the value of the key.
func requireValue(t *testing.T, client *clientv3.Client, key, want string) {
	t.Helper()
	testcluster.Eventually(t, "a get of "+strconv.Quote(key), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		resp, err := client.Get(ctx, key)
		switch {
		case err != nil:
			return err
		case len(resp.Kvs) != 1:
			return errors.New("not found")
		case string(resp.Kvs[0].Value) != want:
			return fmt.Errorf("is %q", resp.Kvs[0].Value)
		}
		return nil
	})
}
