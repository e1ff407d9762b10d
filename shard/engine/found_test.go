package engine

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// forgetting is a file system whose manifests are not on the disk, though they are shown: like Linux after a sync that has
// failed, of which the process that meets it dies.
type forgetting struct{ vfs.FS }

func (f forgetting) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	if err == nil && strings.Contains(name, "MANIFEST") {
		file = forgotten{file}
	}
	return file, err
}

type forgotten struct{ vfs.File }

func (forgotten) Sync() error     { return nil }
func (forgotten) SyncData() error { return nil }

// E7: a process that finds what its predecessor could not make durable makes it so, before anybody rests on it.
func TestWhatIsFoundIsDurable(t *testing.T) {
	disk := vfs.NewCrashableMem()
	e, err := Open(storeDir, Options{FS: disk, CacheBytes: 1 << 20})
	require.NoError(t, err)
	put(t, e, "a", 100, "1")
	require.NoError(t, e.Close())

	e, err = Open(storeDir, Options{FS: forgetting{disk}, CacheBytes: 1 << 20})
	require.NoError(t, err)
	put(t, e, "b", 101, "2")
	require.NoError(t, e.Close())
	all := []string{"a@100=1", "b@101=2"}

	e, err = Open(storeDir, Options{FS: disk, CacheBytes: 1 << 20})
	require.NoError(t, err)
	require.Equal(t, all, dump(t, e.NewReader(), shard.Everything()))
	cut := disk.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, e.Close())

	e, err = Open(storeDir, Options{FS: cut, CacheBytes: 1 << 20})
	require.NoError(t, err)
	require.Equal(t, all, dump(t, e.NewReader(), shard.Everything()))
	require.NoError(t, e.Close())
}
