package engine

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func TestMarker(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		want             error
	}{
		{"newer format", markerName, "flotilla store format 3\n", ErrNewerFormat},
		{"older format", markerName, "flotilla store format 1\n", ErrOlderFormat},
		{"no number", markerName, "flotilla store format x\n", ErrForeignDirectory},
		{"format zero", markerName, "flotilla store format 0\n", ErrForeignDirectory},
		{"another text", markerName, strings.Repeat("etcd", 1000), ErrForeignDirectory},
		{"empty marker", markerName, "", ErrForeignDirectory},
		{"someone else's files", "CURRENT", "x", ErrForeignDirectory},
		{"this format", markerName, "flotilla store format 2\n", nil},
		{"a crash while the marker was written", markerName + ".tmp", "flot", nil},
		{"a fresh ext4 volume", "lost+found", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			require.NoError(t, fs.MkdirAll(storeDir, 0o755))
			require.NoError(t, writeSynced(fs, fs.PathJoin(storeDir, c.file), c.text))
			e, err := Open(storeDir, Options{FS: fs})
			if c.want == nil {
				require.NoError(t, err)
				require.NoError(t, e.Close())
				return
			}
			require.ErrorIs(t, err, c.want)
			require.NotContains(t, err.Error(), "\n", "one line")
			names, err := fs.List(storeDir)
			require.NoError(t, err)
			require.Equal(t, []string{c.file}, names, "a refused directory is left alone")
		})
	}
}

func TestMarkerBytes(t *testing.T) {
	fs := vfs.NewMem()
	openMem(t, fs)
	b, err := fs.UnsafeGetFileDataBuffer(storeDir + "/" + markerName)
	require.NoError(t, err)
	require.Equal(t, "flotilla store format 2\n", string(b))
}
