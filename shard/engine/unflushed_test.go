package engine

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Flushes hurry while more than one gathered batch waits for them, and have all the time when what was committed is flushed.
func TestFlushesHurry(t *testing.T) {
	e, err := Open(storeDir, Options{FS: vfs.NewMem()})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	put(t, e, "a", 100, "1")
	require.Positive(t, e.unflushed.bytes.Load())
	require.NoError(t, e.Sync())
	require.Zero(t, e.unflushed.bytes.Load())

	require.False(t, e.unflushed.urgent())
	e.unflushed.bytes.Add(2 * (hurryBytes - 1))
	require.True(t, e.unflushed.urgent())
	e.unflushed.flushed(pebble.FlushInfo{InputBytes: hurryBytes - 1, Err: errors.New("no room")})
	e.unflushed.flushed(pebble.FlushInfo{InputBytes: hurryBytes - 1, Ingest: true})
	require.True(t, e.unflushed.urgent(), "nothing that was committed has been flushed")
	e.unflushed.flushed(pebble.FlushInfo{InputBytes: hurryBytes - 1})
	require.False(t, e.unflushed.urgent())
}
