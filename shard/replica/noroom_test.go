package replica

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard/engine"
)

// When the store cannot be synced for want of room the log is not cut, and keeps what a killed process has not
// stored; the replica goes on meanwhile, and when it is started again.
func TestALogIsNotCutWithoutRoom(t *testing.T) {
	const between, puts = 50, 110
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}))
	dir := t.TempDir()
	open := func(incarnation uint64) *process {
		var store *engine.Engine
		p := openProcessWith(t, dir, incarnation, func(c *HostConfig) {
			require.NoError(t, c.Engine.Close())
			var err error
			store, err = engine.Open(storeDir(dir), engine.Options{CacheBytes: 1 << 20, FS: fs})
			require.NoError(t, err)
			c.Engine, c.Raft.LogEntries = store, between
		})
		p.engine = store
		return p
	}
	end := func(p *process) {
		p.host.Close()
		require.ErrorIs(t, p.engine.Close(), syscall.ENOSPC, "nothing of it is stored")
	}
	p := open(1)
	p.startNew()
	full.Store(true)
	for i := range puts {
		p.put(fmt.Sprint(i), "v")
	}
	end(p)
	p = open(2)
	p.start()
	for i := range puts { // for so long that Raft's clock ticks
		p.put(fmt.Sprint(i), "v")
	}
	end(p)

	full.Store(false)
	again := openProcess(t, dir, 3, Knobs{})
	defer again.close()
	again.start()
	for i := range puts {
		require.Equal(t, "v", again.get(fmt.Sprint(i)))
	}
}
