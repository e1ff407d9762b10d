package mvcc

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// checksum sums a span up in steps.
func checksum(t *testing.T, r engine.Reader, span shard.Span, compacted shard.Revision, bytesMax int) *Checksum {
	t.Helper()
	c, err := NewChecksum(r, span, compacted)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	for {
		before := c.Versions
		done, err := c.Step(bytesMax)
		require.NoError(t, err)
		if done {
			return c
		}
		require.LessOrEqual(t, c.Versions-before, int64(1+bytesMax/skippedBytes), "a step has its bound")
	}
}

// The sum is of all that can be read at or above the compacted revision, history included,
// and collecting changes nothing of it. It depends on how the span is cut as little as on
// the size of steps.
func TestChecksumIsOfWhatCanBeRead(t *testing.T) {
	story := []string{"put a 1", "put b 1", "put c 1", "del b", "put a 2", "put a 3", "put d 1", "del d", "put a 4", "put b 2"}
	for compacted := shard.Revision(0); compacted <= 21; compacted++ {
		e := openEngine(t, vfs.NewMem())
		write(t, e, 10, story...)
		sum := func(bytesMax int) uint64 {
			return checksum(t, e.NewReader(), shard.Everything(), compacted, bytesMax).Sum
		}
		want := sum(1 << 20)
		require.Equal(t, want, sum(1), "in steps")
		var parts uint64
		for _, s := range []shard.Span{{Start: []byte("b")}, {End: []byte("b")}} {
			parts += checksum(t, e.NewReader(), s, compacted, 1<<20).Sum
		}
		require.Equal(t, want, parts, "in parts")
		for c := shard.Revision(1); c <= compacted; c++ {
			collectAll(t, e, c, CollectLimits{})
			require.Equal(t, want, sum(100), "collected up to %s of %s", c, compacted)
		}
		require.NoError(t, e.Close())
	}
}

// One bit of one old version is found.
func TestChecksumFindsAChange(t *testing.T) {
	e, other := openEngine(t, vfs.NewMem()), openEngine(t, vfs.NewMem())
	write(t, e, 10, "put a 1", "put a 2", "del a", "put b 1")
	write(t, other, 10, "put a 0", "put a 2", "del a", "put b 1")
	all := shard.Everything()
	differ := func(compacted shard.Revision) bool {
		return checksum(t, e.NewReader(), all, compacted, 1).Sum != checksum(t, other.NewReader(), all, compacted, 1).Sum
	}
	require.True(t, differ(0))
	require.True(t, differ(10), "it can be read at the compacted revision")
	require.False(t, differ(11), "nobody can read it any more")
	require.NoError(t, e.Close())
	require.NoError(t, other.Close())
}

// Bytes that are no version are an error of the store's, and not passed over.
func TestChecksumMeetsDamage(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	write(t, e, 10, "put a 1")
	b := e.NewBatch()
	require.NoError(t, b.Set(engine.AppendDataKey(nil, []byte("a"), 10), []byte("nonsense"), nil))
	require.NoError(t, e.Commit(b))
	require.NoError(t, b.Close())
	c, err := NewChecksum(e.NewReader(), shard.Everything(), 0)
	require.NoError(t, err)
	_, err = c.Step(1 << 20)
	require.ErrorIs(t, err, shard.ErrCorrupt)
	require.NoError(t, c.Close())
}

// Nodes of different versions compare sums: they may not change.
func TestChecksumIsFrozen(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	write(t, e, 10, "put a 1", "put a 2", "del a", "put b 1")
	c := checksum(t, e.NewReader(), shard.Everything(), 10, 1<<20)
	require.EqualValues(t, 4, c.Versions)
	require.Equal(t, uint64(0xfe6130b6ebe408f6), c.Sum)
}
