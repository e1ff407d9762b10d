package replica

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// A log is cut behind a split also where a snapshot of the last entry was made that keeps the split's, and nobody writes.
func TestWeanWhereNothingHappens(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer p.close()
	p.startNew()
	p.put("k", "v")
	p.split()
	keep := dragonboat.SnapshotOption{OverrideCompactionOverhead: true, CompactionOverhead: 100}
	p.replica.weaning.Store(p.replica.View().Since) // as a Wean that ended before it had cut
	made, err := p.replica.snapshot(t.Context(), keep)
	require.NoError(t, err)
	require.True(t, made)
	require.False(t, p.replica.Weaned())

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.replica.Wean(ctx, 2))
	require.True(t, p.replica.Weaned())
}

// A replica that has not applied a split yet has not truncated its log behind it, so it must not be counted among those
// that have.
func TestWeanWaitsForItsSplit(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer p.close()
	p.startNew()
	p.put("k", "v")
	soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.replica.Wean(soon, 2), context.DeadlineExceeded)

	weaned := make(chan error, 1)
	go func() { weaned <- p.replica.Wean(t.Context(), 2) }()
	p.split()
	require.NoError(t, <-weaned)
	require.True(t, p.replica.Weaned())
}

// An order that was on its way when its operator ended says nothing of the next split: behind that one the log is
// kept (P14).
func TestALateWean(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer p.close()
	p.startNew()
	p.split()
	require.NoError(t, p.replica.Wean(t.Context(), 2))
	p.splitAt("f")
	require.ErrorIs(t, p.replica.Wean(t.Context(), 2), shard.ErrUnavailable)
	require.False(t, p.replica.mayCut())
}

// split gives the keys from "m" on away.
func (p *process) split() { p.splitAt("m") }

func (p *process) splitAt(key string) {
	whole := p.replica.View().Descriptor
	rest := *whole
	rest.Epoch, rest.Generation, rest.Span.End = whole.Epoch+1, whole.Generation+1, []byte(key)
	child := shard.Descriptor{
		ID: testShard + shard.ID(whole.Epoch), Parent: testShard, Epoch: rest.Epoch, Slot: 9 + shard.Slot(whole.Epoch), Generation: 1,
		Span: shard.Span{Start: []byte(key), End: whole.Span.End},
	}
	require.NoError(p.t, p.replica.Split(p.t.Context(), &rest, &child))
}

// Who has the log cut behind a split knows nothing of the next one, which may come before there is room to cut
// it: behind that one the log is kept (P14).
func TestWeanIsForOneSplit(t *testing.T) {
	c := &crowded{t: t, dir: t.TempDir()}
	p := c.open(1)
	defer func() { p.close() }()
	p.startNew()
	p.split()
	c.full.Store(true)
	applied := p.replica.View().Applied
	weaned := make(chan error, 1)
	go func() { weaned <- p.replica.Wean(t.Context(), 2) }()
	require.Eventually(t, func() bool { return p.replica.View().Applied > applied }, patience, time.Millisecond, "it tries")
	p.splitAt("f")
	c.full.Store(false)
	require.ErrorIs(t, <-weaned, shard.ErrUnavailable)
	require.False(t, p.replica.Weaned())

	require.NoError(t, p.replica.Wean(t.Context(), 3))
	require.True(t, p.replica.Weaned())
}

// The log that brings a split is kept, however much comes after it, until what that gave is said to be durable
// on most nodes (P14); a replica that starts meanwhile has it still.
func TestTheLogIsKeptBehindASplit(t *testing.T) {
	const between, puts = 20, 100
	dir := t.TempDir()
	short := func(c *HostConfig) { c.Raft.LogEntries = between }
	p := openProcessWith(t, dir, 1, short)
	p.startNew()
	write := func() {
		for i := range puts {
			put := putCommand(fmt.Sprint(i), "v")
			put.Epoch = p.replica.View().Descriptor.Epoch
			require.NoError(t, p.propose(put).Err)
		}
	}
	begins := func() uint64 {
		first, err := p.replica.logBegins()
		require.NoError(t, err)
		return first
	}
	write()
	require.Greater(t, begins(), uint64(1), "it is cut again and again")

	p.split()
	since := p.replica.View().Since
	write()
	require.LessOrEqual(t, begins(), since)
	require.False(t, p.replica.Weaned())

	p.close()
	p = openProcessWith(t, dir, 2, short)
	defer func() { p.close() }()
	p.start()
	write()
	require.LessOrEqual(t, begins(), since)

	require.NoError(t, p.replica.Wean(t.Context(), 2))
	require.Equal(t, since+1, begins())
	require.True(t, p.replica.Weaned())
	write()
	require.Greater(t, begins(), since+1, "it is cut as ever")
}
