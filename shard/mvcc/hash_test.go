package mvcc

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// hashAll sums a span up in steps.
func hashAll(t *testing.T, e *engine.Engine, span shard.Span, at shard.Revision, bytesMax int) uint64 {
	t.Helper()
	var sum uint64
	for {
		out, err := Hash(e.NewReader(), span, at, bytesMax)
		require.NoError(t, err)
		sum += out.Sum
		if out.Next == nil {
			return sum
		}
		require.Greater(t, string(out.Next), string(span.Start), "a step makes progress")
		span.Start = out.Next
	}
}

// The sum is of what can be read at the revision and of nothing else.
func TestHashIsOfWhatIsThere(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	write(t, e, 10, "put a 1", "put b 1", "put c 1", "del b", "put a 2", "put a 3", "put a 4", "put a 5", "put a 6", "put d 1", "del d")
	const end = shard.Revision(20)
	all := shard.Everything()
	sums := map[uint64]shard.Revision{}
	for at := shard.Revision(9); at <= end; at++ {
		sum := hashAll(t, e, all, at, 1<<20)
		require.Equal(t, sum, hashAll(t, e, all, at, 1), "cut into steps at revision %s", at)
		var parts uint64
		for _, s := range []shard.Span{{Start: []byte("b")}, {End: []byte("a\x00")}, {Start: []byte("a\x00"), End: []byte("b")}} {
			parts += hashAll(t, e, s, at, 1<<20)
		}
		require.Equal(t, sum, parts, "cut into spans at revision %s", at)
		if was, ok := sums[sum]; ok {
			require.Equal(t, end, at, "as at revision %s", was) // d is gone again
			require.Equal(t, shard.Revision(18), was)
		}
		sums[sum] = at
	}
	require.Zero(t, hashAll(t, e, all, 9, 1), "nothing was there")
	require.Zero(t, hashAll(t, e, shard.Span{Start: []byte("b"), End: []byte("b")}, end, 1))

	// Collecting changes none that may still be asked for.
	before := hashAll(t, e, all, 18, 1<<20)
	collectAll(t, e, 18, CollectLimits{})
	require.Equal(t, before, hashAll(t, e, all, 18, 1<<20))
}

func TestHashTellsApart(t *testing.T) {
	base := Header{Create: 2, Mod: 3, Version: 2, Lease: 7}
	seen := map[string]string{}
	for name, b := range map[string][]byte{
		"base":     appendHashed(nil, []byte("k"), &base, []byte("v")),
		"key":      appendHashed(nil, []byte("kk"), &base, []byte("v")),
		"value":    appendHashed(nil, []byte("k"), &base, []byte("w")),
		"no value": appendHashed(nil, []byte("k"), &base, nil),
		"create":   appendHashed(nil, []byte("k"), &Header{Create: 1, Mod: 3, Version: 2, Lease: 7}, []byte("v")),
		"mod":      appendHashed(nil, []byte("k"), &Header{Create: 2, Mod: 4, Version: 2, Lease: 7}, []byte("v")),
		"version":  appendHashed(nil, []byte("k"), &Header{Create: 2, Mod: 3, Version: 3, Lease: 7}, []byte("v")),
		"lease":    appendHashed(nil, []byte("k"), &Header{Create: 2, Mod: 3, Version: 2, Lease: 8}, []byte("v")),
	} {
		require.Empty(t, seen[string(b)], name)
		seen[string(b)] = name
	}
}

// Nodes of different versions compare sums: they may not change.
func TestHashIsFrozen(t *testing.T) {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	write(t, e, 10, "put a 1", "put b 1")
	require.Equal(t, uint64(0xfb1a1a5a912e4ff9), hashAll(t, e, shard.Everything(), 11, 1<<20))
}
