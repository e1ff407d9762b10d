package replica

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// crowded is a node whose disk has no room for tables, while it is full.
type crowded struct {
	t    *testing.T
	dir  string
	full atomic.Bool
}

const betweenCuts = 50

func (c *crowded) open(incarnation uint64) *process {
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if c.full.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}))
	var store *engine.Engine
	p := openProcessWith(c.t, c.dir, incarnation, func(cfg *HostConfig) {
		require.NoError(c.t, cfg.Engine.Close())
		var err error
		store, err = engine.Open(storeDir(c.dir), engine.Options{CacheBytes: 1 << 20, FS: fs})
		require.NoError(c.t, err)
		cfg.Engine, cfg.Raft.LogEntries = store, betweenCuts
	})
	p.engine = store
	return p
}

// When the store cannot be synced for want of room the log is not cut, and keeps what a killed process has not
// stored; the replica goes on meanwhile, and when it is started again.
func TestALogIsNotCutWithoutRoom(t *testing.T) {
	t.Parallel()
	const puts = 2*betweenCuts + 10
	c := &crowded{t: t, dir: t.TempDir()}
	end := func(p *process) {
		p.host.Close()
		require.ErrorIs(t, p.engine.Close(), syscall.ENOSPC, "nothing of it is stored")
	}
	p := c.open(1)
	p.startNew()
	c.full.Store(true)
	for i := range puts {
		p.put(fmt.Sprint(i), "v")
	}
	end(p)
	p = c.open(2)
	p.start()
	for i := range puts { // for so long that Raft's clock ticks
		p.put(fmt.Sprint(i), "v")
	}
	end(p)

	c.full.Store(false)
	again := openProcess(t, c.dir, 3, Knobs{})
	defer again.close()
	again.start()
	for i := range puts {
		require.Equal(t, "v", again.get(fmt.Sprint(i)))
	}
}

// A node starts without room for tables: a shard whose log was cut earlier has nothing to make durable then,
// though others have by now applied what they find in their logs.
func TestAStartNeedsNoRoom(t *testing.T) {
	t.Parallel()
	const puts = betweenCuts + 10
	c := &crowded{t: t, dir: t.TempDir()}
	p := c.open(1)
	shards := []struct {
		id   shard.ID
		span shard.Span
		key  string
	}{{testShard, shard.Span{End: []byte("m")}, "a"}, {testShard + 1, shard.Span{Start: []byte("m")}, "z"}}
	for _, s := range shards {
		p.startNewShard(s.id, s.span)
		for range puts {
			p.put(s.key, "v")
		}
		require.Eventually(t, func() bool { // its log was cut
			first, err := p.replica.logBegins()
			return err == nil && first > 1
		}, patience, time.Millisecond)
		p.put(s.key, "last")
	}
	c.full.Store(true)
	p.host.Close()
	require.ErrorIs(t, p.engine.Close(), syscall.ENOSPC)

	p = c.open(2)
	for _, s := range shards {
		p.startShard(s.id)
		require.Equal(t, "last", p.get(s.key))
	}
	c.full.Store(false)
	p.close()
}
