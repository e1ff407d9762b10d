// Package giveway has what a store writes in the background give way to what somebody waits for.
//
// Go has no priorities. A flush or a compaction computes for as long as it is let, 10 ms at a time, and a request
// that passes many goroutines waits for it at each; where nodes are equally busy all of them flush
// at about the same time. So after each piece of a table that was written, the goroutine that wrote it
// goes to the end of the queue, and the one that fills the table waits for it: Pebble has them take turns block by block.
// With processors to spare that costs nothing. When there are none, background work gets what is left, and at least
// a turn in 61, which is what Go's scheduler promises; if that is too little, writes stall as they would have anyhow, and
// then there are processors for it.
package giveway

import (
	"errors"
	"runtime"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// pieceBytes is what is written between two turns: some tenths of a millisecond's work. It is also
// written at once: Pebble hands over blocks of 4 KiB, and a system call for each was a tenth of what
// puts of 1 KiB cost the servers.
const pieceBytes = 64 << 10

// FS gives way while tables and files of values are written. Logs, for which requests wait, are not held up.
type FS struct{ vfs.FS }

// Create implements vfs.FS.
func (fs FS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".sst") && !strings.HasSuffix(name, ".blob") {
		return f, err
	}
	return &file{File: f, yield: runtime.Gosched}, nil
}

// Unwrap implements vfs.FS.
func (fs FS) Unwrap() vfs.FS { return fs.FS }

// file is written by one goroutine, from begin to end, and read when it is closed.
type file struct {
	vfs.File
	yield  func()
	begun  []byte // a piece that is not written yet
	failed error  // of a write: there is a hole
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
			f.yield()
		}
	}
	return written, nil
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
