package replica

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard/engine"
)

func (p *process) logBegins() uint64 {
	first, err := p.replica.logBegins()
	require.NoError(p.t, err)
	return first
}

// A log of few large entries is cut like one of many small ones. What came last stays, for replicas that are a little
// behind.
func TestALogIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	const bound, value = 320 << 10, 8 << 10
	dir := t.TempDir()
	few := func(c *HostConfig) { c.Raft.LogBytes = bound }
	p := openProcessWith(t, dir, 1, few)
	p.startNew()
	put := func(i int) { p.put(fmt.Sprint(i), strings.Repeat("v", value)) }
	for p.replica.View().Applied < 30 {
		put(0)
	}
	require.Equal(t, uint64(1), p.logBegins())
	for i := range 300 {
		put(i)
	}
	require.Eventually(t, func() bool {
		put(0) // a cut that was refused is tried again when more has come
		kept := p.replica.View().Applied - p.logBegins() + 1
		require.GreaterOrEqual(t, kept, uint64(bound/value/tailPart))
		return kept <= 2*bound/value
	}, patience, time.Millisecond)

	p.close()
	p = openProcessWith(t, dir, 2, few)
	defer p.close()
	p.start()
	for i := range 300 {
		require.Equal(t, strings.Repeat("v", value), p.get(fmt.Sprint(i)))
	}
}

// However often a node is started again, its logs are cut.
func TestLogsOfShortLivesAreCut(t *testing.T) {
	t.Parallel()
	const bound = 100
	dir := t.TempDir()
	few := func(c *HostConfig) { c.Raft.LogEntries = bound }
	p := openProcessWith(t, dir, 1, few)
	p.startNew()
	for life := uint64(2); ; life++ {
		for range bound/2 + bound/tailPart { // a start counts what it finds, but it has to see where to cut
			p.put("k", "v")
		}
		if life == 4 {
			break
		}
		p.close()
		p = openProcessWith(t, dir, life, few)
		p.start()
	}
	defer p.close()
	require.Eventually(t, func() bool { p.put("k", "v"); return p.logBegins() > 1 }, patience, time.Millisecond)
	require.Less(t, p.replica.View().Applied, uint64(5*bound))
}

// What a start finds in the log counts in bytes too: a node that is started often would otherwise keep its logs several
// times as large as they may be.
func TestAStartCountsTheBytesOfTheLog(t *testing.T) {
	t.Parallel()
	const puts, value = 30, 1 << 10
	dir := t.TempDir()
	p := openProcess(t, dir, 1, Knobs{})
	p.startNew()
	for range puts {
		p.put("k", strings.Repeat("v", value))
	}
	p.close()
	p = openProcess(t, dir, 2, Knobs{})
	defer p.close()
	p.start()
	p.put("k", "v") // the log is there
	applied := p.replica.View().Applied
	s := &stateMachine{replica: p.replica}
	s.count(size{}, applied)
	require.Equal(t, int64(applied), s.tail.size().entries)
	require.InDelta(t, puts*value, s.tail.size().bytes, puts*value/4)
}

// A shard goes on while what it has applied is made durable before its log is cut.
func TestAShardGoesOnWhileItsLogIsCut(t *testing.T) {
	t.Parallel()
	const between = 100
	begun, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var slow atomic.Bool
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if slow.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
			once.Do(func() { close(begun) })
			<-proceed
		}
		return nil
	}))
	var store *engine.Engine
	p := openProcessWith(t, t.TempDir(), 1, func(cfg *HostConfig) {
		require.NoError(t, cfg.Engine.Close())
		var err error
		store, err = engine.Open(filepath.Join(t.TempDir(), "store"), engine.Options{CacheBytes: 1 << 20, FS: fs})
		require.NoError(t, err)
		cfg.Engine, cfg.Raft.LogEntries = store, between
	})
	p.engine = store
	defer p.close()
	p.startNew()
	slow.Store(true)
	for p.replica.View().Applied < 2*between {
		p.put("k", "v")
	}
	<-begun
	for p.replica.View().Applied < 3*between {
		p.put("k", "v")
	}
	require.Equal(t, uint64(1), p.logBegins())
	close(proceed)
	require.Eventually(t, func() bool { p.put("k", "v"); return p.logBegins() > 1 }, patience, time.Millisecond)
}

// A log that may not be cut, because a split is under way, is cut soon after it may.
func TestAFullLogBehindASplit(t *testing.T) {
	t.Parallel()
	const bound, value = 64 << 10, 8 << 10
	p := openProcessWith(t, t.TempDir(), 1, func(c *HostConfig) { c.Raft.LogBytes = bound })
	defer p.close()
	p.startNew()
	p.split()
	put := func() {
		cmd := putCommand("k", strings.Repeat("v", value))
		cmd.Epoch = p.replica.View().Descriptor.Epoch
		require.NoError(t, p.propose(cmd).Err)
	}
	for range 3 * bound / value {
		put()
	}
	require.False(t, p.replica.Weaned())
	p.replica.allowCut(p.replica.View().Since)
	require.Eventually(t, func() bool { put(); return p.replica.Weaned() }, patience, time.Millisecond)
}

func TestTail(t *testing.T) {
	l := tail{max: size{bytes: 80}}
	applied := uint64(100)
	add := func(n int) (cuts []uint64) {
		for range n {
			applied++
			l.add(size{1, 1}, applied)
			if index, ok := l.full(); ok {
				cuts = append(cuts, index)
			}
		}
		return cuts
	}
	require.Empty(t, add(79))
	require.Equal(t, []uint64{164}, add(1), "the last 8 to 16 are kept")
	require.Equal(t, []uint64{172, 180}, add(16), "it was not cut")
	l.truncated()
	require.Equal(t, size{16, 16}, l.size())
	require.Empty(t, add(63))
	require.Equal(t, []uint64{244}, add(1))

	few := tail{max: size{entries: 20, bytes: 1 << 30}}
	for i := range uint64(19) {
		few.add(size{1, 100}, i+1)
		_, ok := few.full()
		require.False(t, ok)
	}
	few.add(size{1, 100}, 20)
	index, ok := few.full()
	require.True(t, ok)
	require.Equal(t, uint64(16), index)

	none := tail{}
	for i := range uint64(10) {
		none.add(size{1, 1 << 40}, i+1)
	}
	_, ok = none.full()
	require.False(t, ok)
}

// While a snapshot is sent, and for a while after it, the log is kept that leads on from there, unless it becomes very large.
func TestALogIsKeptForWhoIsSentASnapshot(t *testing.T) {
	t.Parallel()
	const between = 50
	p := openProcessWith(t, t.TempDir(), 1, func(cfg *HostConfig) { cfg.Raft.LogEntries = between })
	defer func() { p.close() }()
	p.startNew()
	send := func() {
		prepared, err := (&stateMachine{replica: p.replica}).PrepareSnapshot()
		require.NoError(t, err)
		prepared.(*image).data.Close()
	}
	until := func(entries uint64) {
		for p.replica.View().Applied < entries {
			p.put("k", "v")
		}
	}
	isCut := func() bool { p.put("k", "v"); return p.logBegins() > 1 }
	send()
	until(2 * between)
	require.False(t, p.replica.cutting.Load())
	require.Equal(t, uint64(1), p.logBegins())
	p.clock.advance(sendingMax)
	require.Eventually(t, isCut, patience, time.Millisecond)

	p.close()
	p = openProcessWith(t, t.TempDir(), 1, func(cfg *HostConfig) { cfg.Raft.LogEntries = between })
	p.startNew()
	send()
	until(sendingTimes * between)
	require.Eventually(t, isCut, patience, time.Millisecond)
}
