package replica

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/internal/powercut"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/hlc"
	"github.com/flotilla-kv/flotilla/shard/raftlog"
)

// setBack is a clock that goes an hour late.
type setBack struct{ clock.System }

func (s setBack) Now() time.Time { return s.System.Now().Add(-time.Hour) }

// A node that was killed, and whose clock was set back meanwhile, has seen what it had acknowledged when it has seen
// its past: what is written to one shard then comes after what was written to another before.
func TestAKilledNodeSeesItsPast(t *testing.T) {
	disk := powercut.New(false)
	open := func(d *powercut.Disk, incarnation uint64, source *hlc.Hybrid) *process {
		var store *engine.Engine
		p := openProcessWith(t, t.TempDir(), incarnation, func(c *HostConfig) {
			require.NoError(t, c.Engine.Close())
			fs := d.FS(func(errorfs.Op) {})
			var err error
			store, err = engine.Open("store", engine.Options{CacheBytes: 1 << 20, FS: fs})
			require.NoError(t, err)
			c.Engine, c.Source, c.Raft.Dir, c.Raft.Log, c.Raft.FS = store, source, "/raft", &raftlog.Factory{FS: fs}, raftFS{fs}
		})
		p.engine = store
		return p
	}
	const other = testShard + 1
	p := open(disk, 1, hlc.NewHybrid(clock.System{}))
	p.startNewShard(other, shard.Span{Start: []byte("m")})
	p.startNewShard(testShard, shard.Span{End: []byte("m")})
	var last shard.Revision
	for range 300 {
		last = p.put("a", "v")
	}
	left := disk.Cut(0, nil)
	p.close()

	source := hlc.NewHybrid(setBack{})
	p = open(left, 2, source)
	defer func() { p.close() }()
	p.startShard(testShard)
	p.startShard(other)
	p.host.Each(func(r *Replica) {
		require.Eventually(t, func() bool { return !unborn(r.View()) }, patience, time.Millisecond)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.host.SeePast(ctx))
	require.Greater(t, p.put("z", "v"), last)

	ended, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, p.host.SeePast(ended), context.Canceled)
}

// A replica that is removed while the node sees its past is not waited for: its group would never answer.
func TestThePastOfARemovedReplica(t *testing.T) {
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	p.put("k", "v")
	p.close()

	p = openProcessWith(t, dir, 2, func(c *HostConfig) { c.Raft.ElectionTicks = 1 << 20 }) // nobody leads
	defer func() { p.close() }()
	p.startAlone()
	require.Eventually(t, func() bool { return !unborn(p.replica.View()) }, patience, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := make(chan error, 1)
	go func() { seen <- p.host.SeePast(ctx) }()
	require.Eventually(t, func() bool { return p.rounds() > 0 }, patience, time.Millisecond)
	require.NoError(t, p.host.Remove(t.Context(), testShard, testReplica))
	require.NoError(t, <-seen)
}
