package raftlog

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// aheadBytes is by how much a log file grows before it is written to.
	aheadBytes = 64 << 10
	// aheadPage is how much of it is written at a time. The kernel keeps what is written at once
	// as one piece of its cache, and counts all of that as written again for each record in it.
	aheadPage = 4 << 10
	// aheadWriteMax is up to which size a write is worth it. The larger ones are of several groups
	// or of many commands, which share what it saves; to write all of the log twice would cost more.
	aheadWriteMax = 4 << 10
)

// aheadFS fills the store's write-ahead logs with zeros ahead of what is written to them. A
// sync of a file that has grown writes its inode too, one write after the other, and where
// there is a journal that as well; of a file that was there already, only data. So a lone
// write waits for one trip to the disk instead of two. A log that takes the place of an
// old one, as they do once there have been a few, is there already.
//
// The zeros are written, not only reserved: what is reserved becomes data when it is
// written, which is a change of the file as well, or is not durable where nobody waits for it.
// A log that ends in zeros is what Pebble takes for its end.
type aheadFS struct{ vfs.FS }

// Create implements vfs.FS.
func (fs aheadFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err != nil || !isLog(name) {
		return f, err
	}
	return &aheadFile{File: f}, nil
}

// Unwrap implements vfs.FS.
func (fs aheadFS) Unwrap() vfs.FS { return fs.FS }

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// aheadFile is a log that is written from its beginning to its end.
type aheadFile struct {
	vfs.File
	written, filled int64 // up to where
}

// Write implements vfs.File.
func (f *aheadFile) Write(p []byte) (int, error) {
	if len(p) <= aheadWriteMax && f.written+int64(len(p)) > f.filled {
		f.fill()
	}
	n, err := f.File.Write(p)
	f.written += int64(n)
	return n, err
}

// fill writes zeros behind what was written. It matters to nobody whether that succeeds: a full
// disk is for the write to find.
func (f *aheadFile) fill() {
	f.filled = max(f.filled, f.written)
	var zeros [aheadPage]byte
	for end := f.filled + aheadBytes; f.filled < end; f.filled += aheadPage {
		if _, err := f.WriteAt(zeros[:], f.filled); err != nil {
			return
		}
	}
}
