package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/flotilla-kv/flotilla/shard"
)

// Engine is an open store. All methods may be called from any goroutine until Close.
type Engine struct {
	db    *pebble.DB
	fs    vfs.FS
	opts  *pebble.Options
	cache *pebble.Cache
	watch io.Closer // reports slow disk operations

	// Owners is for changes of which replica has which keys.
	Owners Owners

	failures  *failures
	unflushed unflushed
	syncs     *rounds
	// changes counts commits and ingests. secured is how many of them are durable; only the running sync round writes
	// it.
	changes atomic.Uint64
	secured uint64

	tidyBytes uint64 // the size of one piece of Tidy, in bytes of tables

	background background
	readAmp    readAmp

	// incoming is where snapshots are written before they are ingested. It is inside the store's directory because an
	// ingest links files instead of copying them.
	incoming string
	// received numbers the files in incoming.
	received atomic.Uint64
}

// Reader is what reading needs. Both the Engine's live state and a View are Readers.
type Reader interface {
	Get(key []byte) (value []byte, closer io.Closer, err error)
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// A store's directory holds the marker and two directories.
const (
	dataDir     = "data"     // Pebble's
	incomingDir = "incoming" // unfinished snapshots; emptied by Open
)

// Open opens the store in dir. It creates one if dir is missing or empty.
func Open(dir string, o Options) (*Engine, error) {
	o = o.withDefaults()
	if err := checkMarker(o.FS, dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	e := &Engine{incoming: o.FS.PathJoin(dir, incomingDir), cache: pebble.NewCache(o.CacheBytes), tidyBytes: tidyBytes}
	o.FS, e.watch = watchDisk(o.FS, o.Logger)
	e.failures = newFailures(o.FS, o.Logger)
	e.fs, e.opts = o.FS, o.pebble(e.failures, &e.unflushed)
	e.opts.Cache = e.cache
	db, err := pebble.Open(o.FS.PathJoin(dir, dataDir), e.opts)
	if err != nil {
		return nil, fmt.Errorf("open store in %s: %w", dir, errors.Join(err, e.release()))
	}
	e.db = db
	e.syncs = newRounds(e.flush)
	// Not earlier: only Pebble's lock ensures that no other process is receiving a snapshot there.
	if err := e.clearIncoming(); err != nil {
		return nil, fmt.Errorf("open store: %w", errors.Join(err, e.Close()))
	}
	return e, nil
}

func (e *Engine) clearIncoming() error {
	if err := e.fs.RemoveAll(e.incoming); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear unfinished snapshots: %w", err)
	}
	return makeDirs(e.fs, e.incoming)
}

// Close ends the store. No iterator, View or call may be open. Everything committed is durable afterwards, unless
// Close returns an error.
func (e *Engine) Close() error {
	if err := errors.Join(e.Sync(), e.db.Close(), e.release()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// release frees what Pebble's own Close does not.
func (e *Engine) release() error {
	e.cache.Unref()
	return e.watch.Close()
}

// NewBatch returns an empty batch. The caller closes it, after Commit or instead of it.
func (e *Engine) NewBatch() *pebble.Batch { return e.db.NewBatch() }

// NewBatchOf is NewBatch for a batch of about this many bytes. A large batch that grows while it is filled
// temporarily takes several times its size. What is about to be filled gets its pages in one call, not in a fault for
// each.
func (e *Engine) NewBatchOf(bytes int) *pebble.Batch {
	b := e.db.NewBatchWithSize(bytes)
	if bytes >= populateBytesMin {
		populate(b.Repr()[:bytes])
	}
	return b
}

// populateBytesMin is the smallest batch that is likely to get memory that is new to the process.
const populateBytesMin = 1 << 20

// Commit makes the batch visible at once, and durable with the next Sync. A batch is atomic in both respects.
func (e *Engine) Commit(b *pebble.Batch) error {
	e.unflushed.bytes.Add(int64(b.Len()))
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	e.changes.Add(1)
	return nil
}

// Sync makes everything committed before the call durable (E2), by flushing the memtables. Callers that arrive while
// a sync runs share the next one. Sync fails if background work fails meanwhile, for example because the disk is
// full; the commits stay in the store and become durable later.
func (e *Engine) Sync() error {
	e.unflushed.wanted.Add(1)
	defer e.unflushed.wanted.Add(-1)
	return e.SyncAtLeisure()
}

// SyncAtLeisure is Sync for callers whose result no request waits for: the flush yields to requests.
func (e *Engine) SyncAtLeisure() error {
	if err := e.syncs.Do(); err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	return nil
}

// flush runs one round of Sync.
func (e *Engine) flush() error {
	changes := e.changes.Load() // read before the flush begins: later commits may need another one
	if changes == e.secured {
		return nil
	}
	failure := e.failures.next()
	flushed, err := e.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
		e.secured = changes
		return nil
	case <-failure.happened:
		return failure.err
	}
}

// NewReader reads the live state: each Get and each iterator sees everything committed before it was created. It
// needs no closing.
func (e *Engine) NewReader() Reader { return e.db }

// View is a Reader of one span at one moment.
type View struct {
	*pebble.EventuallyFileOnlySnapshot
}

// NewView pins the span's data as it is now, for slow reading (to send a snapshot). An ordinary Pebble snapshot would
// not do: it loses data that Replace excises, and while open it burdens every flush and compaction of the node. The
// View must be closed, and must not read outside the span.
func (e *Engine) NewView(span shard.Span) *View {
	lower, upper := DataSpanBounds(span)
	return &View{e.db.NewEventuallyFileOnlySnapshot([]pebble.KeyRange{{Start: lower, End: upper}})}
}

// Metrics returns Pebble's metrics.
func (e *Engine) Metrics() *pebble.Metrics { return e.db.Metrics() }
