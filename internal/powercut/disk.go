// Package powercut is a file system in memory whose machine may lose power at any moment.
//
// It owns what is durable then: what was synced, and of the rest a part that is drawn. It refuses to know
// what the files mean. Tests open what is left after a cut, as often as they want.
package powercut

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Disk is such a file system.
type Disk struct {
	mem *vfs.MemFS // immutable, like ordered
	// ordered keeps the changes of a directory in order, as journaling file systems do:
	// each is durable before the next begins. MemFS alone may lose one and keep a later
	// one of the same directory, which Pebble does not claim to survive.
	ordered bool

	// mu keeps copies out of changes of directories, in some of which MemFS would deadlock with one.
	mu sync.Mutex
}

// New makes an empty disk. When it is ordered, cuts may leave some of what was not synced.
func New(ordered bool) *Disk { return &Disk{mem: vfs.NewCrashableMem(), ordered: ordered} }

// FS is the disk as programs see it. before is called before each operation, by whoever carries it out,
// and may cut the power.
func (d *Disk) FS(before func(errorfs.Op)) vfs.FS {
	return errorfs.Wrap(guarded{d.mem, d}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		before(op)
		return nil
	}))
}

// Cut returns what a loss of power would leave now: all that was synced, and of each other block and file
// so many percent.
func (d *Disk) Cut(percent int, rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ordered {
		percent = 0
	}
	return &Disk{mem: d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), ordered: d.ordered}
}

// Changes reports whether an operation changes what is on the disk, or makes it durable.
func Changes(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpLink, errorfs.OpRemove, errorfs.OpRemoveAll, errorfs.OpRename, errorfs.OpReuseForWrite, errorfs.OpMkdirAll,
		errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return true
	}
	return false
}

// guarded is the disk without what is told before operations.
type guarded struct {
	vfs.FS
	disk *Disk
}

func (g guarded) change(path string, do func() error) error {
	g.disk.mu.Lock()
	defer g.disk.mu.Unlock()
	if g.disk.ordered {
		if err := g.syncDir(g.PathDir(path)); err != nil {
			return err
		}
	}
	return do()
}

func (g guarded) syncDir(path string) error {
	dir, err := g.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (g guarded) Create(path string, w vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.change(path, func() error { f, err = g.FS.Create(path, w); return err })
	return f, err
}

func (g guarded) OpenReadWrite(path string, w vfs.DiskWriteCategory, opts ...vfs.OpenOption) (f vfs.File, err error) {
	err = g.change(path, func() error { f, err = g.FS.OpenReadWrite(path, w, opts...); return err })
	return f, err
}

func (g guarded) ReuseForWrite(from, to string, w vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.change(to, func() error { f, err = g.FS.ReuseForWrite(from, to, w); return err })
	return f, err
}

func (g guarded) Link(from, to string) error {
	return g.change(to, func() error { return g.FS.Link(from, to) })
}

func (g guarded) Rename(from, to string) error {
	return g.change(to, func() error { return g.FS.Rename(from, to) })
}

func (g guarded) Remove(path string) error {
	return g.change(path, func() error { return g.FS.Remove(path) })
}

func (g guarded) RemoveAll(path string) error {
	return g.change(path, func() error { return g.FS.RemoveAll(path) })
}

func (g guarded) MkdirAll(path string, perm os.FileMode) error {
	g.disk.mu.Lock()
	defer g.disk.mu.Unlock()
	return g.FS.MkdirAll(path, perm)
}
