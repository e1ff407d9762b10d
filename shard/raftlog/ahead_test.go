package raftlog

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// What a lone write is appended to is there already, so that its sync writes nothing but
// the data. In the file are what was written and zeros.
func TestLogIsThereBeforeItIsWritten(t *testing.T) {
	folder := t.TempDir()
	l, err := Open(folder, Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	logs, err := filepath.Glob(filepath.Join(folder, "*.log"))
	require.NoError(t, err)
	require.Len(t, logs, 1)
	size := func() int64 {
		info, err := os.Stat(logs[0])
		require.NoError(t, err)
		return info.Size()
	}
	save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, 1, 1)...))
	first := size()
	for i := uint64(2); i < 50; i++ {
		save(t, l, update(1, 1, raftpb.State{Term: 1}, entries(1, i, i)...))
	}
	require.Equal(t, first, size())
}

// The zeros never take the place of what was written, whatever sizes that has.
func TestWritesAheadOfWhatIsThere(t *testing.T) {
	fs := vfs.NewMem()
	f, err := aheadFS{fs}.Create("1.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	var want []byte
	for i, n := range []int{1, aheadWriteMax, aheadWriteMax + 1, aheadBytes - 3, 100, 2 * aheadBytes, 1, aheadWriteMax} {
		part := make([]byte, n)
		for j := range part {
			part[j] = byte(i + 1)
		}
		want = append(want, part...)
		_, err := f.Write(part)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	got := readFile(t, fs, "1.log")
	require.Equal(t, want, got[:len(want)])
	require.Equal(t, make([]byte, len(got)-len(want)), got[len(want):])
	require.Less(t, len(want), len(got))
}

// Other files of the store are as long as what is in them.
func TestOnlyLogsAreWrittenAhead(t *testing.T) {
	fs := vfs.NewMem()
	f, err := aheadFS{fs}.Create("1.sst", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write([]byte("table"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, []byte("table"), readFile(t, fs, "1.sst"))
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	data := make([]byte, info.Size())
	_, err = f.ReadAt(data, 0)
	require.NoError(t, err)
	return data
}
