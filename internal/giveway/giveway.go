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
	"runtime"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// pieceBytes is what is written between two turns: some tenths of a millisecond's work.
const pieceBytes = 32 << 10

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

// file is written by one goroutine.
type file struct {
	vfs.File
	yield func()
	since int // bytes, since it last gave way
}

// Write implements vfs.File.
func (f *file) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if f.since += n; f.since >= pieceBytes {
		f.since = 0
		f.yield()
	}
	return n, err
}
