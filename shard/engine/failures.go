package engine

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// retryPause is how long a flush or compaction waits after one that has failed.
const retryPause = time.Second

// failures is a file system for Pebble, for when the one below fails.
//
// Background work that has failed Pebble begins again at once: on a full disk that took a processor, with Pebble's lock
// held most of the time, and filled the node's log with thousands of lines a second. So tables are not begun
// soon after a failure. What there is room for is not held up meanwhile, and when there is room again all goes on.
//
// When its log or manifest cannot be written Pebble ends the process, which is right, but does not always say why. So
// it is said here first.
type failures struct {
	vfs.FS
	log    *slog.Logger
	failed atomic.Bool // background work did, since a table was begun last
	pause  func()
}

func newFailures(fs vfs.FS, log *slog.Logger) *failures {
	return &failures{FS: fs, log: log, pause: func() { time.Sleep(retryPause) }}
}

// Create implements vfs.FS. When it is a table's Pebble holds no lock that others want.
func (f *failures) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob") {
		if f.failed.Swap(false) {
			f.pause()
		}
		return f.FS.Create(name, c)
	}
	file, err := f.FS.Create(name, c)
	return f.vital(file, name, err)
}

// ReuseForWrite implements vfs.FS: Pebble does so with logs.
func (f *failures) ReuseForWrite(before, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(before, name, c)
	return f.vital(file, name, err)
}

// Unwrap implements vfs.FS.
func (f *failures) Unwrap() vfs.FS { return f.FS }

func (f *failures) vital(file vfs.File, name string, err error) (vfs.File, error) {
	if f.tell("create", name, err) != nil {
		return nil, err
	}
	return &vital{file, name, f}, nil
}

func (f *failures) tell(what, name string, err error) error {
	if err != nil {
		f.log.Error("store: writing failed", "op", what, "path", name, "err", err.Error()) // without a stack
	}
	return err
}

// vital is a file without which the store cannot go on.
type vital struct {
	vfs.File
	name string
	of   *failures
}

// Write implements vfs.File.
func (f *vital) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.of.tell("write", f.name, err)
}

// Sync implements vfs.File.
func (f *vital) Sync() error { return f.of.tell("sync", f.name, f.File.Sync()) }

// SyncData implements vfs.File.
func (f *vital) SyncData() error { return f.of.tell("sync", f.name, f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f *vital) SyncTo(length int64) (full bool, err error) {
	full, err = f.File.SyncTo(length)
	return full, f.of.tell("sync", f.name, err)
}
