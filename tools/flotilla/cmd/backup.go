package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/internal/snapfile"
)

func newBackup(client *clientFlags) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Save a snapshot of all keys and leases",
		Example: `  flotilla backup saved.db
  flotilla backup verify saved.db`,
		Long: `Save a snapshot of all keys and leases, as of one revision, as etcdctl snapshot save
does. flotilla restore loads it into an empty cluster, and etcdutl snapshot restore makes
an etcd of it. It contains no history and no users.`,
		Args: wantArgs(1, 1, "FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err == nil && !force {
				return fmt.Errorf("%s exists; --force replaces it", args[0])
			}
			return client.connected(c, lines(), func(s *session) error {
				if err := s.saveSnapshot(args[0]); err != nil {
					return err
				}
				info, err := examine(args[0], true)
				if err != nil {
					return err
				}
				return s.print(info.answer(s.printer))
			})
		},
	}
	c.Flags().BoolVar(&force, "force", false, "replace FILE if it exists")
	c.AddCommand(newBackupVerify(client))
	return c
}

func newBackupVerify(client *clientFlags) *cobra.Command {
	var skip bool
	c := &cobra.Command{
		Use:     "verify FILE",
		Short:   "Check a snapshot, Flotilla's or etcd's, and tell what it contains",
		Example: "  flotilla backup verify saved.db",
		Args:    wantArgs(1, 1, "FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := client.prepare(c, linesOrTable())
			if err != nil {
				return err
			}
			info, err := examine(args[0], !skip)
			if err != nil {
				return err
			}
			return p.print(info.answer(p))
		},
	}
	skipHashCheck(c, &skip)
	return c
}

func skipHashCheck(c *cobra.Command, skip *bool) {
	c.Flags().BoolVar(skip, "skip-hash-check", false, "accept a file without a checksum, such as member/snap/db of an etcd that does not run")
}

// createPart begins a file under another name than its own, so that it is complete if it exists. The name is one that
// nobody has: neither a file of the user's nor that of the same command elsewhere.
func createPart(path string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
}

func (s *session) saveSnapshot(path string) (err error) {
	f, err := createPart(path)
	if err != nil {
		return err
	}
	part := f.Name()
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(part)))
		}
	}()
	resp, err := s.SnapshotWithVersion(s.ctx)
	if err != nil {
		return errors.Join(explain(err, s.timeout, false), f.Close())
	}
	_, err = io.Copy(f, resp.Snapshot)
	err = errors.Join(explain(err, s.timeout, false), ignoreCanceled(resp.Snapshot.Close()), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("receive a snapshot: %w", err)
	}
	if _, err = examine(part, true); err != nil {
		return err
	}
	return install(part, path)
}

// install gives a complete file its name, for good.
func install(part, path string) error {
	if err := os.Rename(part, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

type snapshotInfo snapfile.Info

// examine checks a whole file. What it sorts is put beside the file, where there is room for as much.
func examine(path string, checksum bool) (snapshotInfo, error) {
	f, err := snapfile.Open(path, filepath.Dir(path), checksum)
	if err != nil {
		return snapshotInfo{}, explainSnapshot(err)
	}
	return snapshotInfo(f.Info), f.Close()
}

func explainSnapshot(err error) error {
	if errors.Is(err, snapfile.ErrNoChecksum) {
		return fmt.Errorf("%w: it is incomplete, or was not made by snapshot save; --skip-hash-check accepts a database copied from an etcd that did not run", err)
	}
	return err
}

func (i snapshotInfo) answer(p printer) answer {
	return answer{
		message: i,
		simple: func() {
			p.linef("revision %d, %s, %s, %d bytes", i.Revision, counted(int(i.Keys), "key"), counted(int(i.Leases), "lease"), i.Bytes)
		},
		table: func() table.Writer {
			t := newTable("revision", "keys", "leases", "bytes", "storage version", "checksum")
			t.AppendRow(table.Row{i.Revision, i.Keys, i.Leases, i.Bytes, i.Version, i.Checksum})
			return t
		},
	}
}
