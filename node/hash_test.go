package node_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// hashKV asks one node.
func hashKV(t *testing.T, c *testcluster.Cluster, n *testcluster.Node, rev int64) *clientv3.HashKVResponse {
	t.Helper()
	var resp *clientv3.HashKVResponse
	testcluster.Eventually(t, "the hash of "+n.Name, func(ctx context.Context) (err error) {
		resp, err = c.Client(t, n).HashKV(ctx, n.ClientAddr(), rev)
		return err
	})
	return resp
}

// Three nodes agree on what they hold, at every revision and whatever they have collected.
// A value that changes behind a node's back shows in its hash, and in no other.
func TestHashKV(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	client := c.Client(t, c.Node(1))
	var revs []int64
	for i := range 40 {
		revs = append(revs, put(t, client, spread(i, fmt.Sprint(i%20)), fmt.Sprint(i)))
	}
	_, err := client.Delete(t.Context(), spread(3, ""), clientv3.WithPrefix())
	require.NoError(t, err)
	first := hashKV(t, c, c.Node(1), 0)
	require.Equal(t, first.Header.Revision, first.HashRevision)
	require.EqualValues(t, -1, first.CompactRevision)
	seen := map[uint32]bool{first.Hash: true}
	for _, rev := range revs[len(revs)-10:] {
		want := hashKV(t, c, c.Node(1), rev)
		require.False(t, seen[want.Hash], "as at another revision")
		seen[want.Hash] = true
		for _, n := range c.Nodes() {
			require.Equal(t, want.Hash, hashKV(t, c, n, rev).Hash, "%s at revision %d", n.Name, rev)
		}
	}
	for _, n := range c.Nodes() {
		got := hashKV(t, c, n, 0)
		require.Equal(t, first.Hash, got.Hash)
		require.Equal(t, first.HashRevision, got.HashRevision)
		latest, err := pb.NewMaintenanceClient(c.Client(t, n).ActiveConnection()).Hash(t.Context(), &pb.HashRequest{})
		require.NoError(t, err)
		require.Equal(t, first.Hash, latest.Hash)
	}

	// One has collected garbage, the others perhaps not.
	_, err = client.Compact(t.Context(), first.HashRevision, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	for _, n := range c.Nodes() {
		got := hashKV(t, c, n, first.HashRevision)
		require.Equal(t, first.Hash, got.Hash, n.Name)
		require.Equal(t, first.HashRevision, got.CompactRevision)
	}
	_, err = client.HashKV(t.Context(), c.Node(1).ClientAddr(), revs[0])
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	_, err = client.HashKV(t.Context(), c.Node(1).ClientAddr(), 1<<52)
	require.ErrorIs(t, err, rpctypes.ErrFutureRev)

	c.Node(3).Stop()
	alter(t, filepath.Join(c.Node(3).Config().DataDir, "store"))
	c.Node(3).Start(t)
	require.Equal(t, first.Hash, hashKV(t, c, c.Node(1), first.HashRevision).Hash)
	require.Equal(t, first.Hash, hashKV(t, c, c.Node(2), first.HashRevision).Hash)
	require.NotEqual(t, first.Hash, hashKV(t, c, c.Node(3), first.HashRevision).Hash)
}

// alter changes a bit of one value in a store that nobody uses.
func alter(t *testing.T, dir string) {
	t.Helper()
	e, err := engine.Open(dir, engine.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	it, err := e.NewReader().NewIter(nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, it.Close()) }()
	require.True(t, it.SeekGE(engine.DataPrefix(nil)))
	_, _, ok := engine.DecodeDataKey(it.Key())
	require.True(t, ok)
	value, err := it.ValueAndErr()
	require.NoError(t, err)
	altered := append([]byte(nil), value...)
	altered[len(altered)-1] ^= 1
	b := e.NewBatch()
	defer b.Close()
	require.NoError(t, b.Set(it.Key(), altered, pebble.NoSync))
	require.NoError(t, e.Commit(b))
	require.NoError(t, e.Sync())
}
