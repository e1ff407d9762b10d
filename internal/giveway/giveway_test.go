package giveway

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// A table gives way after each piece, whatever the sizes of what is written; a log never does.
func TestTablesGiveWay(t *testing.T) {
	fs := FS{vfs.NewMem()}
	for _, name := range []string{"000004.sst", "000005.blob"} {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		turns := 0
		f.(*file).yield = func() { turns++ }
		write := func(n int) int {
			wrote, err := f.Write(make([]byte, n))
			require.NoError(t, err)
			require.Equal(t, n, wrote)
			return turns
		}
		require.Zero(t, write(pieceBytes-1))
		require.Equal(t, 1, write(1))
		require.Equal(t, 2, write(3*pieceBytes))
		require.Equal(t, 2, write(pieceBytes/2))
		require.Equal(t, 3, write(pieceBytes/2))
		require.NoError(t, f.Close())
		info, err := fs.Stat(name)
		require.NoError(t, err)
		require.EqualValues(t, 5*pieceBytes, info.Size())
	}
	for _, name := range []string{"000006.log", "MANIFEST-000001", "OPTIONS-000003"} {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, gives := f.(*file)
		require.False(t, gives, name)
		require.NoError(t, f.Close())
	}
}

// counting counts the turns of the files of a store.
type counting struct {
	vfs.FS
	turns *int
}

func (c counting) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := FS{c.FS}.Create(name, category)
	if f, ok := f.(*file); ok {
		f.yield = func() { *c.turns++ }
	}
	return f, err
}

// Pebble names its files as is assumed here, and writes them bit by bit.
func TestAFlushGivesWay(t *testing.T) {
	turns := 0
	db, err := pebble.Open("", &pebble.Options{FS: counting{vfs.NewMem(), &turns}, Logger: pebble.DefaultLogger})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	value := make([]byte, 1000)
	for i := range 1000 {
		value[i] = byte(i) // hard to compress
		require.NoError(t, db.Set([]byte{byte(i), byte(i >> 8)}, value, pebble.NoSync))
	}
	require.Zero(t, turns)
	require.NoError(t, db.Flush())
	require.Positive(t, turns)
}
