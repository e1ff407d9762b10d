package etcdapi

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
)

// A snapshot comes as etcd's clients expect it: how much remains, the checksum last, and nothing is left behind.
func TestSnapshotStream(t *testing.T) {
	dir := t.TempDir()
	f, ctx := newFaceOf(t, Config{SnapshotDir: dir}), t.Context()
	for i := range 300 {
		_, err := f.client.Put(ctx, fmt.Sprint("k", i), string(make([]byte, 500)))
		require.NoError(t, err)
	}
	stream, err := pb.NewMaintenanceClient(f.client.ActiveConnection()).Snapshot(ctx, &pb.SnapshotRequest{})
	require.NoError(t, err)
	var all, last []byte
	left := uint64(0)
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, "3.6.0", resp.Version)
		require.LessOrEqual(t, len(resp.Blob), snapshotChunkBytes)
		all, last, left = append(all, resp.Blob...), resp.Blob, resp.RemainingBytes
	}
	require.Zero(t, left)
	require.Equal(t, sha256.Size, len(all)%512)
	sum := sha256.Sum256(all[:len(all)-sha256.Size])
	require.Equal(t, sum[:], last)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestSnapshotErrors(t *testing.T) {
	full := errors.New("none")
	f, ctx := newFaceOf(t, Config{SnapshotDir: t.TempDir(), SnapshotRoom: func(int64) error { return fmt.Errorf("%w: %w", shard.ErrNoSpace, full) }}), t.Context()
	snapshot := func() error {
		resp, err := f.client.SnapshotWithVersion(ctx)
		if err == nil {
			err = resp.Snapshot.Close()
		}
		return err
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(snapshot()))
	f.kv.mu.Lock()
	f.kv.mu.fails = []error{shard.ErrCompacted, shard.ErrCompacted, shard.ErrCompacted}
	f.kv.mu.Unlock()
	require.Equal(t, codes.Aborted, status.Code(snapshot()))
	for range snapshotsMax {
		f.server.snapshots <- struct{}{}
	}
	require.ErrorContains(t, snapshot(), "busy with 2 other snapshots")
}
