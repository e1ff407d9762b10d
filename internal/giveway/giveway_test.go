package giveway

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
)

// calm returns an FS that is never in a hurry.
func calm(fs vfs.FS) *FS { return &FS{FS: fs, Hurry: func() bool { return false }} }

// A table's writer rests after each piece, whatever the sizes of the single writes. A log's never does.
func TestTablesGiveWay(t *testing.T) {
	fs := calm(vfs.NewMem())
	for _, name := range []string{"000004.sst", "000005.blob"} {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		turns := 0
		f.(*file).rest = func(time.Duration) { turns++ }
		write := func(n int) int {
			wrote, err := f.Write(make([]byte, n))
			require.NoError(t, err)
			require.Equal(t, n, wrote)
			return turns
		}
		require.Zero(t, write(pieceBytes-1))
		require.Equal(t, 1, write(1))
		require.Equal(t, 4, write(3*pieceBytes))
		require.Equal(t, 4, write(pieceBytes/2))
		require.Equal(t, 5, write(pieceBytes/2))
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

// A table's writer rests three times as long as the piece took, but never for long. Rests do not count as work.
func TestARestIsAsLongAsThePiece(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := calm(vfs.NewMem()).Create("000004.sst", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		defer func() { require.NoError(t, f.Close()) }()
		for _, c := range []struct{ took, rests time.Duration }{
			{100 * time.Microsecond, 300 * time.Microsecond},
			{0, 0},
			{600 * time.Microsecond, 1800 * time.Microsecond},
			{time.Millisecond, restMax},
			{time.Hour, restMax},
		} {
			bubble.Pass(c.took) // fills a piece
			began := time.Now()
			_, err = f.Write(make([]byte, pieceBytes))
			require.NoError(t, err)
			require.Equal(t, c.rests, time.Since(began))
		}
		f.(*file).hurry = func() bool { return true }
		bubble.Pass(time.Millisecond)
		began := time.Now()
		_, err = f.Write(make([]byte, pieceBytes))
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
	})
}

// What was written can be read, and is durable after a sync, even if it does not fill a piece.
func TestPiecesAreWrittenBeforeTheyAreSynced(t *testing.T) {
	for name, sync := range map[string]func(f vfs.File) error{
		"Sync":     vfs.File.Sync,
		"SyncData": vfs.File.SyncData,
	} {
		mem := vfs.NewCrashableMem()
		f, err := calm(mem).Create("000004.sst", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		dir, err := mem.OpenDir("")
		require.NoError(t, err)
		require.NoError(t, dir.Sync())
		require.NoError(t, dir.Close())
		want := make([]byte, pieceBytes+pieceBytes/2)
		for i := range want {
			want[i] = byte(i % 251)
		}
		_, err = f.Write(want)
		require.NoError(t, err)
		require.NoError(t, sync(f))
		left, err := mem.CrashClone(vfs.CrashCloneCfg{}).Open("000004.sst")
		require.NoError(t, err, name)
		got, err := io.ReadAll(left)
		require.NoError(t, err)
		require.Equal(t, want, got, name)
		require.NoError(t, left.Close())

		_, err = f.Write(want[:10])
		require.NoError(t, err)
		info, err := f.Stat()
		require.NoError(t, err)
		require.EqualValues(t, len(want)+10, info.Size())
		_, err = f.Write(want[:10])
		require.NoError(t, err)
		require.NoError(t, f.Close())
		info, err = mem.Stat("000004.sst")
		require.NoError(t, err)
		require.EqualValues(t, len(want)+20, info.Size())
	}
}

// A table with a missing piece never passes for whole, whatever is written after it.
func TestAFailedPieceIsNotPassedOver(t *testing.T) {
	full := errors.New("the disk is full")
	fail := true
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fail && op.Kind == errorfs.OpFileWrite {
			return full
		}
		return nil
	}))
	f, err := calm(fs).Create("000004.sst", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(make([]byte, pieceBytes+1))
	require.ErrorIs(t, err, full)
	fail = false
	_, err = f.Write(make([]byte, pieceBytes))
	require.ErrorIs(t, err, full)
	require.ErrorIs(t, f.Sync(), full)
	require.ErrorIs(t, f.SyncData(), full)
	_, err = f.SyncTo(1)
	require.ErrorIs(t, err, full)
	require.ErrorIs(t, f.Close(), full)
}

// counting counts how often the files of a store rest.
type counting struct {
	vfs.FS
	turns *int
}

func (c counting) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := calm(c.FS).Create(name, category)
	if f, ok := f.(*file); ok && f.rest != nil {
		f.rest = func(time.Duration) { *c.turns++ }
	}
	return f, err
}

// Pebble names its tables as FS expects, and writes them in small blocks.
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
