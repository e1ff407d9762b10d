package testcluster

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk is a node's file system, whose free space the test decides.
type Disk struct {
	vfs.FS
	free atomic.Uint64
}

// diskBytes is the size of a Disk: roomy, whatever the machine has.
const diskBytes = 100 << 30

func newDisk(fs vfs.FS) *Disk {
	d := &Disk{FS: fs}
	d.SetFree(diskBytes / 2)
	return d
}

// SetFree decides how many bytes seem to be free from now on.
func (d *Disk) SetFree(bytes uint64) { d.free.Store(bytes) }

// GetDiskUsage implements vfs.FS.
func (d *Disk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	free := d.free.Load()
	return vfs.DiskUsage{AvailBytes: free, TotalBytes: diskBytes, UsedBytes: diskBytes - free}, nil
}

// Unwrap implements vfs.FS.
func (d *Disk) Unwrap() vfs.FS { return d.FS }
