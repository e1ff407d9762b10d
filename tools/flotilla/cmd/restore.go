package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/snapfile"
)

// A batch of puts is bounded by both.
const (
	restoreKeys  = 2048
	restoreBytes = 8 << 20
)

func newRestore(flags *clientFlags) *cobra.Command {
	var skip, resume bool
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Load a snapshot, Flotilla's or etcd's, into an empty cluster",
		Example: `  flotilla restore saved.db
  # after an attempt that was interrupted
  flotilla restore --resume saved.db`,
		Long: `Load the keys and leases of a snapshot into an empty cluster, compare them with the file
afterwards, and compact the cluster, so that nobody who remembers a revision of the old one misses
a change unnoticed. Keep clients away until it is done. Keys get new revisions, and leases begin their TTLs anew.
History and users are not restored.`,
		Args: wantArgs(1, 1, "FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := flags.prepare(c, []string{formatSimple})
			if err != nil {
				return err
			}
			f, err := snapfile.Open(args[0], filepath.Dir(args[0]), !skip)
			if err != nil {
				return explainSnapshot(err)
			}
			err = flags.with(c.Context(), p, func(s *session) error { return s.restore(flags, f, resume) })
			return errors.Join(err, f.Close())
		},
	}
	skipHashCheck(c, &skip)
	c.Flags().BoolVar(&resume, "resume", false, "continue an interrupted restore of the same file: accept keys that are there already if they equal those of the file")
	return c
}

func (s *session) restore(flags *clientFlags, f *snapfile.File, resume bool) (err error) {
	secure, err := flags.tlsConfig()
	if err != nil {
		return err
	}
	name, password, err := flags.login()
	if err != nil {
		return err
	}
	native, err := client.New(client.Config{Endpoints: flags.endpoints, TLS: secure, Username: name, Password: password})
	if err != nil {
		return err
	}
	defer native.Close()
	if !resume {
		resp, err := read(s, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return s.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
		})
		if err != nil {
			return err
		}
		if resp.Count > 0 {
			return fmt.Errorf("the cluster is not empty, it has %s; restore into a new one, or --resume if an earlier restore of this file was interrupted", counted(int(resp.Count), "key"))
		}
	} else if err := compare(s.ctx, f, native, func(*mvccpb.KeyValue) error { return nil }); err != nil {
		return err
	}
	if f.Users {
		fmt.Fprintln(s.err, "note: the snapshot contains users or roles, which are not restored")
	}
	progress := newFollower(s.err)
	defer func() { progress.end(err == nil) }()
	if err := s.restoreLeases(f, resume); err != nil {
		return interrupted(err)
	}
	renewing, stop := context.WithCancel(s.ctx)
	defer stop()
	if err := s.keepLeases(renewing, f); err != nil {
		return interrupted(err)
	}
	l := &loader{session: s, native: native, left: f.Keys, progress: progress}
	if err := compare(s.ctx, f, native, l.add); err != nil {
		return interrupted(err)
	}
	if err := l.flush(); err != nil {
		return interrupted(err)
	}
	progress.show(stage{state: "comparing the cluster with the file"})
	missing := func(kv *mvccpb.KeyValue) error { return fmt.Errorf("key %.64q is missing", kv.Key) }
	if err := compare(s.ctx, f, native, missing); err != nil {
		return interrupted(fmt.Errorf("after the restore: %w; does something else write to the cluster, or did a lease expire?", err))
	}
	last, err := s.forget()
	if err != nil {
		return interrupted(err)
	}
	if last <= f.Revision {
		fmt.Fprintf(s.err, "note: the snapshot's revision %d is above the cluster's, %d: restart clients that remember revisions of the old cluster\n", f.Revision, last)
	}
	s.linef("restored %s and %s", counted(int(f.Keys), "key"), counted(int(f.Leases), "lease"))
	return nil
}

func interrupted(err error) error {
	return &failure{exitUnknown, fmt.Errorf("%w; the restore is incomplete, --resume continues it", err)}
}

func (s *session) restoreLeases(f *snapfile.File, resume bool) error {
	for _, id := range slices.Sorted(maps.Keys(f.LeaseTTLs)) {
		ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
		_, err := pb.NewLeaseClient(s.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: max(1, f.LeaseTTLs[id])})
		cancel()
		if err = rpctypes.Error(err); err != nil && !(resume && errors.Is(err, rpctypes.ErrLeaseExist)) {
			return fmt.Errorf("grant lease %x: %w", id, explain(err, s.timeout, true))
		}
	}
	return nil
}

// keepLeases renews the leases until ctx ends: keys of short ones would go before the last key is there.
func (s *session) keepLeases(ctx context.Context, f *snapfile.File) error {
	for id := range f.LeaseTTLs {
		renewed, err := s.KeepAlive(ctx, clientv3.LeaseID(id))
		if err != nil {
			return fmt.Errorf("renew lease %x: %w", id, err)
		}
		go func() {
			for range renewed { // it ends with ctx
			}
		}()
	}
	return nil
}

// forget compacts everything up to the restore.
func (s *session) forget() (int64, error) {
	latest, err := read(s, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return s.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	})
	if err != nil {
		return 0, err
	}
	if latest.Header.Revision <= 1 {
		return latest.Header.Revision, nil // nothing was written
	}
	_, err = write(s, func(ctx context.Context) (*clientv3.CompactResponse, error) {
		resp, err := s.Compact(ctx, latest.Header.Revision)
		if errors.Is(err, rpctypes.ErrCompacted) {
			err = nil // by an earlier attempt
		}
		return resp, err
	})
	return latest.Header.Revision, err
}

// loader puts keys in batches.
type loader struct {
	*session
	native   *client.Client
	ops      []client.Op
	bytes    int
	left     int64
	progress follower
}

func (l *loader) add(kv *mvccpb.KeyValue) error {
	var options []client.Option
	if kv.Lease != 0 {
		options = append(options, client.WithLease(kv.Lease))
	}
	l.ops = append(l.ops, client.Put(string(kv.Key), kv.Value, options...))
	if l.bytes += len(kv.Key) + len(kv.Value); len(l.ops) < restoreKeys && l.bytes < restoreBytes {
		return nil
	}
	return l.flush()
}

// flush repeats nothing: a put whose outcome is unknown ends the restore, which can be resumed.
func (l *loader) flush() error {
	for _, out := range l.native.Batch(l.ctx, l.ops...) {
		if out.Err != nil {
			return fmt.Errorf("put: %w", out.Err)
		}
	}
	l.left -= int64(len(l.ops))
	l.ops, l.bytes = l.ops[:0], 0
	l.progress.show(stage{state: "writing keys", left: l.left})
	return nil
}

// compare walks the file and one snapshot of the cluster in key order. Keys that only the file has are passed to missing;
// keys that only the cluster has, or that differ, are an error.
func compare(ctx context.Context, f *snapfile.File, native *client.Client, missing func(*mvccpb.KeyValue) error) error {
	next, stop := iter.Pull2(native.Scan(ctx, "", client.WithPrefix()))
	defer stop()
	there, err := following(next)
	if err != nil {
		return err
	}
	var failed error
	for kv := range f.Latest(&failed) {
		if there != nil && bytes.Compare(there.Key, kv.Key) < 0 {
			return fmt.Errorf("the cluster has key %.64q, which is not in the file", there.Key)
		}
		if there == nil || !bytes.Equal(there.Key, kv.Key) {
			if err := missing(kv); err != nil {
				return err
			}
			continue
		}
		if !bytes.Equal(there.Value, kv.Value) || there.Lease != kv.Lease {
			return fmt.Errorf("key %.64q differs from the file", kv.Key)
		}
		if there, err = following(next); err != nil {
			return err
		}
	}
	if failed == nil && there != nil {
		return fmt.Errorf("the cluster has key %.64q, which is not in the file", there.Key)
	}
	return failed
}

// following returns the next key of a scan, nil at its end.
func following(next func() (*mvccpb.KeyValue, error, bool)) (*mvccpb.KeyValue, error) {
	kv, err, ok := next()
	if !ok {
		return nil, nil
	}
	return kv, err
}
