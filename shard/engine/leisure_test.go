package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// tableWrites counts the bytes written to tables and value files while somebody hurries, and while nobody does.
type tableWrites struct {
	vfs.FS
	hurry           func() bool
	hurried, spared atomic.Int64
}

func (w *tableWrites) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".sst") && !strings.HasSuffix(name, ".blob") {
		return f, err
	}
	return &countedFile{f, w}, nil
}

type countedFile struct {
	vfs.File
	writes *tableWrites
}

func (f *countedFile) Write(p []byte) (int, error) {
	if f.writes.hurry() {
		f.writes.hurried.Add(int64(len(p)))
	} else {
		f.writes.spared.Add(int64(len(p)))
	}
	return f.File.Write(p)
}

// A replica that is sent its data, or is removed, first has all that is only in memory written out. No request waits for
// that. Hurried on several nodes at once it kept the disk busy, and requests waited for their log.
func TestWhatNoRequestWaitsForIsWrittenAtLeisure(t *testing.T) {
	const backlog = 4 << 20
	for _, c := range []struct {
		name    string
		hurries bool
		do      func(e *Engine) error
	}{
		{"replace", false, func(e *Engine) error {
			return e.Replace(span("x", "y"), func(w *SSTWriter) error { return w.Put([]byte("xa"), 1<<20, []byte("v")) })
		}},
		{"delete a replica", false, func(e *Engine) error { return e.DeleteReplica(7, 1, nil) }},
		{"sync at leisure", false, (*Engine).SyncAtLeisure},
		{"sync", true, (*Engine).Sync},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := &tableWrites{FS: vfs.NewMem(), hurry: func() bool { return false }}
			e, err := Open(storeDir, Options{FS: fs})
			require.NoError(t, err)
			defer func() { require.NoError(t, e.Close()) }()
			fs.hurry = e.unflushed.urgent
			random := rand.NewChaCha8([32]byte{})
			value := make([]byte, 64<<10) // of bytes that do not compress
			for i := range backlog / len(value) {
				_, _ = random.Read(value)
				put(t, e, fmt.Sprintf("a%03d", i), shard.Revision(100+i), string(value))
			}
			fs.hurried.Store(0)
			fs.spared.Store(0)
			require.NoError(t, c.do(e))
			if c.hurries {
				require.Greater(t, fs.hurried.Load(), int64(backlog/2))
				return
			}
			require.Greater(t, fs.spared.Load(), int64(backlog/2))
			require.Less(t, fs.hurried.Load(), int64(backlog/16))
		})
	}
}
