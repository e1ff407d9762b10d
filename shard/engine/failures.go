package engine

import (
	"log/slog"
	"strings"
	"sync"
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
// When its manifest cannot be written Pebble ends the process, which is right, but does not always say why. So
// it is said here first.
type failures struct {
	vfs.FS
	log   *slog.Logger
	pause func()

	mu     sync.Mutex
	failed bool     // background work did, since a table was begun last
	coming *failure // what next has told of, nil if nobody asked
}

// failure is background work that has failed, or will.
type failure struct {
	happened chan struct{} // closed after err is set
	err      error
}

func newFailures(fs vfs.FS, log *slog.Logger) *failures {
	return &failures{FS: fs, log: log, pause: func() { time.Sleep(retryPause) }}
}

// note is told of background work that has failed.
func (f *failures) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = true
	if f.coming != nil {
		f.coming.err = err
		close(f.coming.happened)
		f.coming = nil
	}
}

// next is the first failure from now on.
func (f *failures) next() *failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.coming == nil {
		f.coming = &failure{happened: make(chan struct{})}
	}
	return f.coming
}

// since reports whether background work failed since it was asked before.
func (f *failures) since() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	failed := f.failed
	f.failed = false
	return failed
}

// Create implements vfs.FS. When it is a table's Pebble holds no lock that others want.
func (f *failures) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob") {
		if f.since() {
			f.pause()
		}
		return f.FS.Create(name, c)
	}
	file, err := f.FS.Create(name, c)
	if f.tell("create", name, err) != nil {
		return nil, err
	}
	return &vital{file, name, f}, nil
}

// Unwrap implements vfs.FS.
func (f *failures) Unwrap() vfs.FS { return f.FS }

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
