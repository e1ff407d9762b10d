package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// On a full disk flushes fail one after the other, with a pause before each. Who waits for one is told. Commits go on, and
// when there is room, it is as if nothing had happened.
func TestFlushesOnAFullDiskArePaced(t *testing.T) {
	var full atomic.Bool
	var logged bytes.Buffer
	pauses, release := make(chan struct{}), make(chan struct{})
	e, err := Open("store", Options{
		FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if full.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
				return syscall.ENOSPC
			}
			return nil
		})),
		CacheBytes: 1 << 20, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		tune: func(o *pebble.Options) {
			vfsUnder[*failures](t, o.FS).pause = func() {
				pauses <- struct{}{}
				<-release
			}
		},
	})
	require.NoError(t, err)
	put(t, e, "a", 100, "1")
	full.Store(true)
	require.ErrorIs(t, e.Sync(), syscall.ENOSPC)
	for range 3 { // each comes after a failure
		<-pauses
		put(t, e, "b", 101, "2")
		release <- struct{}{}
	}
	<-pauses
	full.Store(false)
	close(release)
	go func() { // others, of compactions
		for range pauses {
		}
	}()
	require.Eventually(t, func() bool { return e.Sync() == nil }, stallPatience, time.Millisecond)
	require.Equal(t, []string{"a@100=1", "b@101=2"}, dump(t, e.NewReader(), shard.Everything()))
	require.NoError(t, e.Close())
	close(pauses)
	require.Contains(t, logged.String(), "no space left on device")
	for line := range strings.Lines(logged.String()) {
		require.Less(t, len(line), 500, line)
	}
}

// Pebble may end the process in a way that does not say why it cannot write its manifest: then that was said before.
func TestFailuresAreTold(t *testing.T) {
	var logged bytes.Buffer
	failing := errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			return syscall.EIO
		}
		return nil
	})
	fs := newFailures(errorfs.Wrap(vfs.NewMem(), failing), slog.New(slog.NewTextHandler(&logged, nil)))
	f, err := fs.Create("MANIFEST-000001", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	requireTold := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, syscall.EIO)
		require.Contains(t, logged.String(), `msg="store: writing failed"`)
		require.Contains(t, logged.String(), "path=MANIFEST-000001")
		require.Contains(t, logged.String(), syscall.EIO.Error())
		logged.Reset()
	}
	_, err = f.Write([]byte("x"))
	requireTold(err)
	requireTold(f.Sync())
	requireTold(f.SyncData())
	_, err = f.SyncTo(1)
	requireTold(err)
	require.NoError(t, f.Close())
}

// vfsUnder finds the file system of a type under another one.
func vfsUnder[T vfs.FS](t *testing.T, fs vfs.FS) T {
	for fs != nil {
		if found, ok := fs.(T); ok {
			return found
		}
		fs = fs.Unwrap()
	}
	t.Fatal("there is none")
	panic("unreachable")
}
