package raftlog

import (
	"bytes"
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
	logs, err := filepath.Glob(filepath.Join(folder, "*"+segmentSuffix))
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

const aheadBytes = 2 * aheadPage

// The zeros never take the place of what was written, whatever sizes that has.
func TestWritesAheadOfWhatIsThere(t *testing.T) {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll(dir, 0o755))
	f, err := folder{fs, dir, aheadBytes}.open("1")
	require.NoError(t, err)
	var want []byte
	for i, n := range []int{1, aheadWriteMax, aheadWriteMax + 1, aheadBytes - 3, 100, 2 * aheadBytes, 1, aheadWriteMax} {
		part := bytes.Repeat([]byte{byte(i + 1)}, n)
		_, err := f.WriteAt(part, int64(len(want)))
		require.NoError(t, err)
		want = append(want, part...)
	}
	require.NoError(t, f.Close())
	got := readFile(t, fs, dir+"/1")
	require.Equal(t, want, got[:len(want)])
	require.Equal(t, make([]byte, len(got)-len(want)), got[len(want):])
	require.Less(t, len(want), len(got))
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	require.Len(t, data, n, err)
	return data
}
