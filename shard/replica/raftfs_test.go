package replica

import (
	"errors"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	raftvfs "github.com/lni/vfs"
)

// raftFS is a file system as dragonboat wants it.
type raftFS struct{ vfs.FS }

var _ raftvfs.FS = raftFS{}

func (r raftFS) Create(name string) (raftvfs.File, error) {
	return raftFileOf(r.FS.Create(name, vfs.WriteCategoryUnspecified))
}

func (r raftFS) Open(name string, _ ...raftvfs.OpenOption) (raftvfs.File, error) {
	return raftFileOf(r.FS.Open(name))
}

func (r raftFS) OpenDir(name string) (raftvfs.File, error) { return raftFileOf(r.FS.OpenDir(name)) }

func (r raftFS) OpenForAppend(name string) (raftvfs.File, error) {
	file, err := r.FS.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	stat, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return raftFile{&appended{file, stat.Size()}}, nil
}

func (r raftFS) ReuseForWrite(from, to string) (raftvfs.File, error) {
	return raftFileOf(r.FS.ReuseForWrite(from, to, vfs.WriteCategoryUnspecified))
}

func (r raftFS) Stat(name string) (os.FileInfo, error) { return r.FS.Stat(name) }

func (r raftFS) GetDiskUsage(string) (raftvfs.DiskUsage, error) {
	return raftvfs.DiskUsage{}, errors.ErrUnsupported
}

// raftFile is a file as dragonboat wants it, which does not seek.
type raftFile struct{ vfs.File }

func raftFileOf(file vfs.File, err error) (raftvfs.File, error) {
	if err != nil {
		return nil, err
	}
	return raftFile{file}, nil
}

func (f raftFile) Stat() (os.FileInfo, error) { return f.File.Stat() }

func (f raftFile) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }

// appended is a file that is written at its end.
type appended struct {
	vfs.File
	end int64
}

func (f *appended) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.end)
	f.end += int64(n)
	return n, err
}

var _ io.Writer = (*appended)(nil)
