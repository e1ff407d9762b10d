package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/snapfile"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
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

// requireCut checks that the snapshot has exactly what a read at its revision returns, and returns the leases in it.
func requireCut(t *testing.T, client *clientv3.Client, path string) (ttls map[int64]int64) {
	t.Helper()
	f, err := snapfile.Open(path, t.TempDir(), true)
	require.NoError(t, err)
	at := f.Revision - 1 // snapfile.Compacted
	want, err := client.Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithRev(at))
	require.NoError(t, err)
	require.NotEmpty(t, want.Kvs)
	var failed error
	var got []*mvccpb.KeyValue
	for kv := range f.Latest(&failed) {
		got = append(got, proto.CloneOf(kv))
	}
	require.NoError(t, failed)
	requireKeys(t, want.Kvs, got)
	require.NoError(t, f.Close())
	return f.LeaseTTLs
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
		ttls := requireCut(t, client, path)
		require.Equal(t, map[int64]int64{int64(lease.ID): 600}, ttls)
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

// fill puts n keys with values of 2 KiB, from prefix + "0000" on.
func fill(t *testing.T, client *clientv3.Client, prefix string, n int) {
	t.Helper()
	value := strings.Repeat("v", 2<<10)
	for from := 0; from < n; from += 100 {
		var ops []clientv3.Op
		for i := from; i < from+100; i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%04d", prefix, i), value))
		}
		_, err := client.Txn(t.Context()).Then(ops...).Commit()
		require.NoError(t, err)
	}
}

// While shards are split under them, snapshots are cuts.
func TestSnapshotsDuringSplits(t *testing.T) {
	t.Parallel()
	const keys = 3000
	c := testcluster.Start(t, testcluster.Options{})
	client := c.Client(t)
	fill(t, client, "k", keys)
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = client.Put(ctx, fmt.Sprintf("k%04d", i*7%keys), "later")
		}
	})
	for i, n := range c.Nodes() {
		splits := make(chan struct{})
		go func() {
			defer close(splits)
			for at := range 3 {
				splitAt(t, c.Node(1), fmt.Sprintf("k%04d", (3*i+at)*keys/9))
			}
		}()
		for split := false; !split; {
			path, err := saveSnapshot(t, c.Client(t, n))
			require.NoError(t, err)
			requireCut(t, client, path)
			select {
			case <-splits:
				split = true
			default:
			}
		}
	}
	stop()
	writer.Wait()
}

// receiveSnapshot is saveSnapshot with a client that does not try again when the node is gone.
func receiveSnapshot(t *testing.T, n *testcluster.Node) (string, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.ClientAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	stream, err := pb.NewMaintenanceClient(conn).Snapshot(t.Context(), &pb.SnapshotRequest{})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "snapshot.db")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		_, err = f.Write(part.Blob)
		require.NoError(t, err)
	}
}

// making reports whether the node is making a snapshot.
func making(t *testing.T, n *testcluster.Node) bool {
	t.Helper()
	made, err := os.ReadDir(filepath.Join(n.Config().DataDir, "snapshots"))
	require.True(t, err == nil || errors.Is(err, os.ErrNotExist), "%v", err)
	return len(made) > 0
}

// beginSnapshot starts one, and returns once it is being made. Then wait returns what it came to.
func beginSnapshot(t *testing.T, n *testcluster.Node) (wait func() (string, error)) {
	t.Helper()
	type outcome struct {
		path string
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		path, err := receiveSnapshot(t, n)
		ended <- outcome{path, err}
	}()
	testcluster.Until(t, "a snapshot to be made, or sent", func() bool { return len(ended) > 0 || making(t, n) })
	return func() (string, error) {
		o := <-ended
		return o.path, o.err
	}
}

// When the node that leads the shards stops, a snapshot of another node goes on. When the one that makes it stops, or the only
// one with the keys, its client learns that there is none.
func TestSnapshotWhenANodeStops(t *testing.T) {
	t.Parallel()
	const keys = 3000
	t.Run("another has the keys too", func(t *testing.T) {
		c := testcluster.Start(t, testcluster.Options{})
		client := c.Client(t, c.Node(1))
		fill(t, client, "k", keys)
		leader := c.Node(1)
		testcluster.Until(t, "a leader", func() bool {
			for _, n := range c.Nodes() {
				leads := false
				n.Inside().Host().Each(func(r *replica.Replica) { leads = leads || r.ID() >= shard.FirstDataID && r.Leads() })
				if leads {
					leader = n
					return true
				}
			}
			return false
		})
		at := c.Node(1)
		if leader == at {
			at = c.Node(2)
		}
		wait := beginSnapshot(t, at)
		leader.Stop()
		path, err := wait()
		require.NoError(t, err)
		requireCut(t, c.Client(t, at), path)

		wait = beginSnapshot(t, at)
		at.Stop()
		path, err = wait()
		if err == nil { // it was complete before
			_, err = snapfile.Open(path, t.TempDir(), true)
			require.NoError(t, err)
		}
	})
	t.Run("nobody else has the keys", func(t *testing.T) {
		c, home, far := apart(t, testcluster.Options{}, "k")
		fill(t, c.Client(t, home), "k", keys)
		wait := beginSnapshot(t, far)
		home.Stop()
		_, err := receiveSnapshot(t, far) // while the one before may still wait for the node
		require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
		path, err := wait()
		if err == nil { // it was read before
			f, err := snapfile.Open(path, t.TempDir(), true)
			require.NoError(t, err)
			require.Equal(t, int64(keys), f.Keys)
			require.NoError(t, f.Close())
		}
	})
}

// A client that leaves, while a snapshot is made or sent, leaves nothing behind, and its place.
func TestSnapshotOfAClientThatLeaves(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	n := c.Node(1)
	client := c.Client(t)
	fill(t, client, "k", 3000)
	nothing := func() {
		t.Helper()
		testcluster.Until(t, "nothing to be left", func() bool {
			return !making(t, n) && !opened(t, filepath.Join(n.Config().DataDir, "snapshots")) && answersOf(t, n) == 0
		})
	}
	for range 3 { // more than a node makes at a time
		ctx, leave := context.WithCancel(t.Context())
		_, err := pb.NewMaintenanceClient(client.ActiveConnection()).Snapshot(ctx, &pb.SnapshotRequest{})
		require.NoError(t, err)
		testcluster.Until(t, "a snapshot to be made, or sent", func() bool {
			return making(t, n) || opened(t, filepath.Join(n.Config().DataDir, "snapshots"))
		})
		leave()
		nothing()
	}
	for range 3 {
		ctx, leave := context.WithCancel(t.Context())
		stream, err := pb.NewMaintenanceClient(client.ActiveConnection()).Snapshot(ctx, &pb.SnapshotRequest{})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
		leave()
		nothing()
	}
	path, err := saveSnapshot(t, client)
	require.NoError(t, err)
	requireCut(t, client, path)
}

// opened reports whether this process has a file open in the directory, with a name or without.
func opened(t *testing.T, dir string) bool {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, f := range files {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, dir) {
			return true
		}
	}
	return false
}
