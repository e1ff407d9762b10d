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

// pieceBytes is how much is written between two rests: a few tenths of a millisecond of work. It is also written with
// one system call: Pebble hands over blocks of 4 KiB, and a system call for each of them took a tenth of what puts of
// 1 KiB cost the servers.
const pieceBytes = 64 << 10

const (
	// restTimes: a writer rests this many times as long as the piece took.
	restTimes = 3
	// restMax bounds a rest. While CPUs are short, a piece takes long because others run; tables must still not be
	// written more slowly than data arrives.
	restMax = 2 * time.Millisecond
)

// FS slows down flushes and everything else that writes tables or value files itself. Writes to logs are not delayed,
// because requests wait for them. Nor are a compaction's writes: compactions rest by the time they work
// (Compactions).
type FS struct {
	vfs.FS
	// Hurry reports whether writers should not rest. It is asked after each piece.
	Hurry func() bool
}

// compacting is the category under which Pebble's compactions write.
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

// rest sleeps for d and then goes to the end of the run queue. Without the second step it would run next: Go puts a
// goroutine whose sleep has ended at the front.
func rest(d time.Duration) {
	time.Sleep(d)
	runtime.Gosched()
}

// file is written by one goroutine from beginning to end, and read only after it was closed.
type file struct {
	vfs.File
	hurry  func() bool
	rest   func(time.Duration) // nil: never rests
	began  time.Time           // when the current piece was begun
	begun  []byte              // the current piece, as far as it is filled
	failed error               // error of a write; the file then has a hole
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

// due returns how long the writer rests after the current piece.
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
