package raftlog

import "github.com/cockroachdb/pebble/v2/vfs"

const (
	// aheadPage is the size of one write of zeros. The kernel caches what is written at once as one
	// piece, and counts all of it as written again for each record in it.
	aheadPage = 4 << 10
	// aheadWriteMax is the size up to which a write benefits. Larger ones are of several groups or
	// of many commands, which share the saving; writing all of the log twice would cost more.
	aheadWriteMax = 4 << 10
)

// aheadFile is filled with zeros ahead of what is written to it, from its beginning to its end. A
// sync of a file that has grown writes its inode too, one write after the other, and where
// there is a journal that as well; of a file that was there already, only data. So a lone
// write waits for one trip to the disk instead of two. A file that was a segment before is
// there already.
//
// The zeros are written, not only reserved: what is reserved becomes data when it is
// written, which is a change of the file as well, or is not durable where nobody waits for it.
type aheadFile struct {
	vfs.File
	filled int64 // up to where it is there
	by     int64 // how far it grows at a time, a multiple of aheadPage
}

// WriteAt implements vfs.File.
func (f *aheadFile) WriteAt(p []byte, at int64) (int, error) {
	if len(p) <= aheadWriteMax && at+int64(len(p)) > f.filled {
		f.fill(at)
	}
	return f.File.WriteAt(p, at)
}

// fill writes zeros from the file's end. Its failure does not matter: a full disk is for the write
// itself to find.
func (f *aheadFile) fill(at int64) {
	f.filled = max(f.filled, at)
	var zeros [aheadPage]byte
	for end := f.filled + f.by; f.filled < end; f.filled += aheadPage {
		if _, err := f.File.WriteAt(zeros[:], f.filled); err != nil {
			return
		}
	}
}
