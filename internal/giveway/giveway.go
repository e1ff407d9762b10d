// Package giveway makes a store's background writes yield the CPU to requests that somebody waits for.
//
// Go has no priorities. A flush or a compaction runs for a time slice of 10 ms, and a request that
// passes through several goroutines may wait for such a slice at each of them. Therefore the goroutine that writes a
// table rests after each piece and then yields, going to the end of the run queue. The goroutine that fills the
// table waits for it, because Pebble makes the two alternate block by block.
//
// Yielding helps only within a process. Between processes, including clients on the same machine, the kernel
// divides CPUs by runnable threads, and a flush that never stops always has one. Resting three times as long as
// the piece took limits it to a quarter of a CPU, at the price of finishing later.
//
// A rest is short when pieces are fast, because CPUs are idle or values are large, and it is bounded when they are slow: if
// no CPU is idle, background work gets what is left, and at least one turn in 61, which Go's scheduler
// guarantees. While more data arrives than can be written this way (Hurry), the writer does not rest. Otherwise requests
// would eventually all stall for space in the memtables.
package giveway

import (
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// pieceBytes is what is written between two turns: some tenths of a millisecond's work. It is also
// written at once: Pebble hands over blocks of 4 KiB, and a system call for each was a tenth of what
// puts of 1 KiB cost the servers.
const pieceBytes = 64 << 10

const (
	// restTimes is how many times as long as a piece took its writer rests.
	restTimes = 3
	// restMax bounds a rest: while processors are short a piece takes long because others run, and tables must not be
	// written more slowly than they come.
	restMax = 2 * time.Millisecond
)

// FS has flushes give way, and whatever else writes tables and files of values by itself. Logs, for which requests
// wait, are not held up, nor are compactions of tables: those rest by what they work (Compactions).
type FS struct {
	vfs.FS
	// Hurry reports whether writers should not rest. It is asked after each piece.
	Hurry func() bool
}

// compacting is how Pebble says that it is a compaction of tables that writes.
const compacting vfs.DiskWriteCategory = "pebble-compaction"

// Create implements vfs.FS.
func (fs *FS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".sst") && !strings.HasSuffix(name, ".blob") {
		return f, err
	}
	table := &file{File: f, hurry: fs.Hurry, began: time.Now()}
	if c != compacting {
		table.rest = rest
	}
	return table, nil
}

// Unwrap implements vfs.FS.
func (fs *FS) Unwrap() vfs.FS { return fs.FS }

// rest returns after some time, behind all who wait for a processor: who has slept comes first in Go's queue.
func rest(d time.Duration) {
	time.Sleep(d)
	runtime.Gosched()
}

// file is written by one goroutine, from begin to end, and read when it is closed.
type file struct {
	vfs.File
	hurry  func() bool
	rest   func(time.Duration) // nil: never
	began  time.Time           // the piece that is being filled
	begun  []byte              // as much of it as there is
	failed error               // of a write: there is a hole
}

// Write implements vfs.File.
func (f *file) Write(p []byte) (written int, err error) {
	if f.begun == nil {
		f.begun = make([]byte, 0, pieceBytes)
	}
	for len(p) > 0 {
		n := copy(f.begun[len(f.begun):pieceBytes], p)
		f.begun, p = f.begun[:len(f.begun)+n], p[n:]
		written += n
		if len(f.begun) == pieceBytes {
			if err := f.writeBegun(); err != nil {
				return written, err
			}
			if f.rest != nil {
				f.rest(f.due())
				f.began = time.Now()
			}
		}
	}
	return written, nil
}

// due is how long the writer of a piece rests now.
func (f *file) due() time.Duration {
	if f.hurry() {
		return 0
	}
	return min(restTimes*time.Since(f.began), restMax)
}

func (f *file) writeBegun() error {
	if f.failed == nil && len(f.begun) > 0 {
		_, f.failed = f.File.Write(f.begun)
		f.begun = f.begun[:0]
	}
	return f.failed
}

// Sync implements vfs.File.
func (f *file) Sync() error {
	if err := f.writeBegun(); err != nil {
		return err
	}
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f *file) SyncData() error {
	if err := f.writeBegun(); err != nil {
		return err
	}
	return f.File.SyncData()
}

// SyncTo implements vfs.File.
func (f *file) SyncTo(length int64) (fullSync bool, err error) {
	if err := f.writeBegun(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

// Stat implements vfs.File.
func (f *file) Stat() (vfs.FileInfo, error) {
	if err := f.writeBegun(); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

// Close implements vfs.File.
func (f *file) Close() error { return errors.Join(f.writeBegun(), f.File.Close()) }
