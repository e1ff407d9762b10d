package node_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/snapfile"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
)

func saveSnapshot(t *testing.T, client *clientv3.Client) (string, error) {
	t.Helper()
	resp, err := client.SnapshotWithVersion(t.Context())
	if err != nil {
		return "", err
	}
	defer resp.Snapshot.Close()
	require.Equal(t, snapfile.StorageVersion, resp.Version)
	path := filepath.Join(t.TempDir(), "snapshot.db")
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = io.Copy(f, resp.Snapshot)
	require.NoError(t, f.Close())
	return path, err
}

// Every node makes snapshots of all shards that are exactly what a read at their revision returns, while keys are
// written, overwritten and deleted.
func TestSnapshotIsACut(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Splits: "b,c,d"})
	ctx, stop := context.WithCancel(t.Context())
	client := c.Client(t)
	lease, err := client.Grant(t.Context(), 600)
	require.NoError(t, err)
	var writers sync.WaitGroup
	began := make(chan struct{}, 4)
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%c%03d", 'a'+(i+w)%4, i%97)
				if i%5 == 4 {
					_, _ = client.Delete(ctx, key)
				} else {
					_, _ = client.Put(ctx, key, fmt.Sprint(w, i), clientv3.WithLease(lease.ID))
				}
				if i == 50 {
					began <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-began
	}
	for _, n := range c.Nodes() {
		path, err := saveSnapshot(t, c.Client(t, n))
		require.NoError(t, err)
		f, err := snapfile.Open(path, t.TempDir(), true)
		require.NoError(t, err)
		at := f.Revision - 1 // snapfile.Compacted
		want, err := client.Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithRev(at))
		require.NoError(t, err)
		require.NotEmpty(t, want.Kvs)
		var failed error
		i := 0
		for kv := range f.Latest(&failed) {
			require.Less(t, i, len(want.Kvs))
			require.True(t, proto.Equal(want.Kvs[i], kv), "%v is not %v", kv, want.Kvs[i])
			i++
		}
		require.NoError(t, failed)
		require.Len(t, want.Kvs, i)
		require.Equal(t, map[int64]int64{int64(lease.ID): 600}, f.LeaseTTLs)
		require.NoError(t, f.Close())
		left, err := os.ReadDir(filepath.Join(n.Config().DataDir, "snapshots"))
		require.NoError(t, err)
		require.Empty(t, left)
	}
	stop()
	writers.Wait()
}

// A snapshot that would let puts be refused is not made, and a node removes at its start what a snapshot left.
func TestSnapshotLeavesRoom(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	n := c.Node(1)
	_, err := c.Client(t).Put(t.Context(), "k", "v")
	require.NoError(t, err)
	limit := uint64(n.Config().MinFreeDisk)
	if limit == 0 {
		limit = 512 << 20
	}
	n.Disk.SetFree(limit + limit/4)
	_, err = saveSnapshot(t, c.Client(t))
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "no room")
	n.Disk.SetFree(limit * 4)
	_, err = saveSnapshot(t, c.Client(t))
	require.NoError(t, err)

	n.Stop()
	left := filepath.Join(n.Config().DataDir, "snapshots", "left")
	require.NoError(t, os.MkdirAll(left, 0o700))
	n.Start(t)
	require.NoDirExists(t, left)
}
