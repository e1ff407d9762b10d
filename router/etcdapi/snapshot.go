package etcdapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/snapfile"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// snapshotsMax is how many snapshots a node makes or sends at a time. Each takes disk and memory.
	snapshotsMax = 2
	// snapshotAttempts is how often a snapshot is started before it is given up, when compactions overtake it.
	snapshotAttempts = 3
	// snapshotChunkBytes is etcd's size of a message.
	snapshotChunkBytes = 32 << 10
)

// Snapshot sends a file that etcdutl restores: the whole keyspace as one cut. The file is made before any of it is
// sent, because it is ordered by revision and begins with its size.
func (s *maintenanceServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	ctx := stream.Context()
	select {
	case s.snapshots <- struct{}{}:
		defer func() { <-s.snapshots }()
	default:
		return status.Errorf(codes.ResourceExhausted, "flotilla: this node is busy with %d other snapshots; ask another node, or later", snapshotsMax)
	}
	place, err := s.cfg.Room.Take(admission.Read, 0)
	if err != nil {
		return readError(ctx, err)
	}
	defer place.Leave()
	began := time.Now()
	made, err := s.makeSnapshot(ctx)
	if err != nil {
		s.cfg.Logger.Warn("no snapshot was made", "error", err)
		return snapshotError(ctx, err)
	}
	log := s.cfg.Logger.With("revision", made.revision, "keys", made.keys, "bytes", made.bytes)
	log.Info("snapshot made, sending it", "took", time.Since(began))
	if err := s.sendSnapshot(made, stream); err != nil {
		log.Warn("snapshot was not sent to its end", "error", err)
		return snapshotError(ctx, err)
	}
	log.Info("snapshot sent", "took", time.Since(began))
	return nil
}

func snapshotError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, shard.ErrNoSpace):
		return status.Errorf(codes.ResourceExhausted, "flotilla: no room to make a snapshot: %v", err)
	case errors.Is(err, shard.ErrCompacted):
		return status.Errorf(codes.Aborted, "flotilla: %d times a compaction overtook the snapshot before it was complete; compact less often, or up to an older revision", snapshotAttempts)
	}
	return readError(ctx, err)
}

// snapshotFile is a complete file without its checksum. Its name is gone already, so it ends with the process at the
// latest.
type snapshotFile struct {
	*os.File
	bytes, keys, revision int64
}

// makeSnapshot makes a file of the latest cut. As long as history lasts it works half of the time.
func (s *maintenanceServer) makeSnapshot(ctx context.Context) (*snapshotFile, error) {
	for attempt := 1; ; attempt++ {
		made, err := s.trySnapshot(ctx, attempt == 1)
		if err == nil || attempt == snapshotAttempts || !errors.Is(err, shard.ErrCompacted) {
			return made, err
		}
	}
}

func (s *maintenanceServer) trySnapshot(ctx context.Context, gently bool) (_ *snapshotFile, err error) {
	dir, err := s.newSnapshotDir()
	if err != nil {
		return nil, err
	}
	b, err := snapfile.NewBuilder(dir, func(bytes int64) error {
		if ctx.Err() != nil { // nobody waits for the file any more
			return context.Cause(ctx)
		}
		return s.cfg.SnapshotRoom(bytes)
	})
	if err != nil {
		return nil, err
	}
	// The file that Finish has opened stays readable.
	defer func() {
		if failed := b.Close(); failed != nil {
			s.cfg.Logger.Warn("files of a snapshot are left over", "directory", dir, "error", failed)
		}
	}()
	leases, err := s.leases.LeaseTTLs(ctx)
	if err != nil {
		return nil, err
	}
	made, first, began := &snapshotFile{}, true, time.Now()
	a := s.newAnswer(ctx, admission.Part)
	defer a.Leave()
	err = s.kv.RangeStream(admission.With(ctx, a), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, func(part *pb.RangeResponse) error {
		if first {
			// The cut has been made. A lease that a key of it names was listed before, or is listed now,
			// unless it ends.
			later, err := s.leases.LeaseTTLs(ctx)
			if err != nil {
				return err
			}
			maps.Copy(leases, later)
			first = false
		}
		for _, kv := range part.Kvs {
			if err := b.Add(kv); err != nil {
				return err
			}
		}
		made.keys += int64(len(part.Kvs))
		if part.Header != nil {
			made.revision = part.Header.Revision
		}
		a.Leave() // the next part is an answer of its own
		if gently {
			if err := pause(ctx, time.Since(began)); err != nil {
				return err
			}
		}
		began = time.Now()
		return nil
	})
	if err != nil {
		return nil, err
	}
	made.File, made.bytes, err = b.Finish(made.revision, leases)
	if err != nil {
		return nil, err
	}
	return made, nil
}

func (s *maintenanceServer) newSnapshotDir() (dir string, err error) {
	if s.cfg.SnapshotDir != "" {
		if err := os.MkdirAll(s.cfg.SnapshotDir, 0o700); err != nil {
			return "", fmt.Errorf("create a directory for snapshots: %w", err)
		}
	}
	if dir, err = os.MkdirTemp(s.cfg.SnapshotDir, "flotilla-snapshot-"); err != nil {
		return "", fmt.Errorf("create a directory for a snapshot: %w", err)
	}
	return dir, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sendSnapshot gives up when the client receives nothing for a while: it would keep the file on the disk, and others
// from a snapshot.
func (s *maintenanceServer) sendSnapshot(made *snapshotFile, stream pb.Maintenance_SnapshotServer) error {
	progress, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		// It ends soon after the RPC has, which this function's return ends.
		defer made.Close()
		ended <- sendFile(made, stream, progress)
	}()
	patience := time.NewTimer(s.cfg.SnapshotPatience)
	defer patience.Stop()
	for {
		select {
		case <-progress:
			patience.Reset(s.cfg.SnapshotPatience)
		case err := <-ended:
			return err
		case <-patience.C:
			return status.Errorf(codes.DeadlineExceeded, "flotilla: the client has received nothing of the snapshot for %s", s.cfg.SnapshotPatience)
		}
	}
}

// sendFile sends the file, and the checksum as the last message.
func sendFile(made *snapshotFile, stream pb.Maintenance_SnapshotServer, progress chan<- struct{}) error {
	sum := sha256.New()
	for left := made.bytes; left > 0; {
		chunk := make([]byte, min(left, snapshotChunkBytes)) // gRPC may keep it after Send
		if _, err := io.ReadFull(made, chunk); err != nil {
			return fmt.Errorf("read a snapshot that was just made: %w", err)
		}
		_, _ = sum.Write(chunk) // never fails
		left -= int64(len(chunk))
		if err := stream.Send(&pb.SnapshotResponse{RemainingBytes: uint64(left), Blob: chunk, Version: snapfile.StorageVersion}); err != nil {
			return err
		}
		select {
		case progress <- struct{}{}:
		default:
		}
	}
	return stream.Send(&pb.SnapshotResponse{Blob: sum.Sum(nil), Version: snapfile.StorageVersion})
}
