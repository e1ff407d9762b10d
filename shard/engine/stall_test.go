package engine

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// stallPatience is for what takes microseconds.
const stallPatience = 30 * time.Second

// Commits go on while a Replace of other keys waits for a flush, however long that takes.
func TestReplaceHoldsUpNobody(t *testing.T) {
	var closed atomic.Bool
	reached, open := make(chan struct{}, 16), make(chan struct{})
	release := sync.OnceFunc(func() { close(open) })
	gate := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if closed.Load() && op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") && !strings.Contains(op.Path, "incoming") {
			reached <- struct{}{}
			<-open
		}
		return nil
	})
	e, err := Open("store", Options{FS: errorfs.Wrap(vfs.NewMem(), gate), CacheBytes: 1 << 20, tune: func(o *pebble.Options) {
		o.Experimental.DisableIngestAsFlushable = func() bool { return true } // as when much waits to be flushed
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	defer release()
	put(t, e, "a", 100, "goes")
	put(t, e, "m", 101, "stays")

	closed.Store(true)
	replaced := make(chan error, 1)
	go func() { replaced <- e.Replace(span("a", "b"), nil) }()
	<-reached
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		put(t, e, "n", 102, "new")
	}()
	select {
	case <-committed:
	case <-time.After(stallPatience):
		require.Fail(t, "a commit waits for the flush")
	}
	release()
	require.NoError(t, <-replaced)
	<-committed
	require.Equal(t, []string{"m@101=stays", "n@102=new"}, dump(t, e.NewReader(), shard.Everything()))
}
