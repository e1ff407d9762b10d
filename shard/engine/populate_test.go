package engine

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// What has been written to memory stays there, wherever in a page it begins and ends.
func TestPopulateChangesNothing(t *testing.T) {
	all := bytes.Repeat([]byte("flotilla"), 8<<10)
	want := bytes.Clone(all)
	for _, part := range [][]byte{nil, all[:1], all, all[1:], all[100 : 9<<10], all[4095:4097]} {
		populate(part)
		require.Equal(t, want, all)
	}
}

// A batch with room for much is empty, and can be committed like any other.
func TestLargeBatchIsEmpty(t *testing.T) {
	e := openMem(t, vfs.NewMem())
	b := e.NewBatchOf(populateBytesMin)
	defer func() { require.NoError(t, b.Close()) }()
	require.True(t, b.Empty())
	require.Zero(t, b.Count())
	require.NoError(t, b.Set(DataKey([]byte("a"), 100), []byte("v"), nil))
	require.NoError(t, e.Commit(b))
	require.Equal(t, []string{"a@100=v"}, dump(t, e.NewReader(), shard.Everything()))
}
