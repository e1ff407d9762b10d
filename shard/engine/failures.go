package engine

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// retryPause is how long a flush or compaction waits after another has failed.
const retryPause = time.Second

// failures is the file system given to Pebble. It handles errors of the file system below.
//
// Pebble retries failed background work at once. On a full disk that used up a CPU, held Pebble's lock most of the
// time, and wrote thousands of log lines a second. So after a failure the next table is begun only after a pause.
// Files that still fit are not delayed, and once there is room again everything continues.
//
// If Pebble cannot write its manifest, it ends the process. That is right, but it does not always say why, so the
// error is logged here first.
type failures struct {
	vfs.FS
	log   *slog.Logger
	pause func()

	mu     sync.Mutex
	failed bool     // background work has failed since the last table was begun
	coming *failure // what next has returned; nil if nobody asked
}

// failure is a failure of background work, past or future.
type failure struct {
	happened chan struct{} // closed after err is set
	err      error
}

func newFailures(fs vfs.FS, log *slog.Logger) *failures {
	return &failures{FS: fs, log: log, pause: func() { time.Sleep(retryPause) }}
}

// note records that background work has failed.
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

// next returns the first failure from now on.
func (f *failures) next() *failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.coming == nil {
		f.coming = &failure{happened: make(chan struct{})}
	}
	return f.coming
}

// since reports whether background work has failed since the previous call.
func (f *failures) since() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	failed := f.failed
	f.failed = false
	return failed
}

// Create implements vfs.FS. Pausing here is safe: while Pebble creates a table, it holds no lock that others want.
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
		f.log.Error("store: writing failed", "op", what, "path", name, "err", err.Error()) // without the stack trace
	}
	return err
}

// vital is a file that the store cannot do without.
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
