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
	watch io.Closer // of slow disk operations

	failures  *failures
	unflushed unflushed
	syncs     *rounds
	// changes counts commits and ingests, secured is how many of them are durable; the round that runs writes that.
	changes atomic.Uint64
	secured uint64

	tidyBytes uint64 // of tables: a piece of Tidy

	background background

	// incoming is where snapshots are written before they are ingested: inside the
	// store's directory, because files are linked and not copied.
	incoming string
	// received numbers the files in incoming.
	received atomic.Uint64
}

// Reader is what reading needs; the Engine's live state and a View both are one.
type Reader interface {
	Get(key []byte) (value []byte, closer io.Closer, err error)
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// A store's directory holds the marker and two directories.
const (
	dataDir     = "data"     // Pebble's
	incomingDir = "incoming" // unfinished snapshots; emptied by Open
)

// Open opens the store in dir and makes one if dir is missing or empty.
func Open(dir string, o Options) (*Engine, error) {
	o = o.withDefaults()
	if err := checkMarker(o.FS, dir, o.ReadOnly); err != nil {
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
	if o.ReadOnly {
		return e, nil
	}
	// Only now: Pebble's lock says that no other process receives a snapshot there.
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

// Close ends the store. No iterator, View or call may be open. What was committed is
// durable after it, unless it says that this failed.
func (e *Engine) Close() error {
	if err := errors.Join(e.Sync(), e.db.Close(), e.release()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// release gives up what outlives Pebble.
func (e *Engine) release() error {
	e.cache.Unref()
	return e.watch.Close()
}

// NewBatch returns an empty batch. The caller closes it after Commit or instead.
func (e *Engine) NewBatch() *pebble.Batch { return e.db.NewBatch() }

// NewBatchOf is NewBatch for one of about so many bytes: a large one that grows as it is filled
// takes, for a while, several times as much.
func (e *Engine) NewBatchOf(bytes int) *pebble.Batch { return e.db.NewBatchWithSize(bytes) }

// Commit makes the batch visible at once and durable by the next Sync. One batch is
// atomic in both senses.
func (e *Engine) Commit(b *pebble.Batch) error {
	e.unflushed.bytes.Add(int64(b.Len()))
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	e.changes.Add(1)
	return nil
}

// Sync makes everything committed before the call durable (E2), by writing out what is in memory.
// Callers that come while a sync runs share the next one. It fails when background work does
// meanwhile, for want of room for example; what was committed stays, and becomes durable later.
func (e *Engine) Sync() error {
	e.unflushed.wanted.Add(1)
	defer e.unflushed.wanted.Add(-1)
	return e.SyncAtLeisure()
}

// SyncAtLeisure is Sync for when nobody waits for it: it gives way to requests.
func (e *Engine) SyncAtLeisure() error {
	if err := e.syncs.Do(); err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	return nil
}

// flush is one round of Sync.
func (e *Engine) flush() error {
	changes := e.changes.Load() // before the flush begins: what is committed meanwhile may need another
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

// NewReader reads the live state: each Get and each iterator sees what was committed
// when it was made. It needs no closing.
func (e *Engine) NewReader() Reader { return e.db }

// View is a Reader of one moment of one span.
type View struct {
	*pebble.EventuallyFileOnlySnapshot
}

// NewView pins the span's data as it is now, to be read slowly (a snapshot to send).
// An ordinary Pebble snapshot would not do: it loses data that Replace excises, and
// while open it burdens every flush and compaction of the node. The View must be
// closed and must read nothing outside the span.
func (e *Engine) NewView(span shard.Span) *View {
	lower, upper := DataSpanBounds(span)
	return &View{e.db.NewEventuallyFileOnlySnapshot([]pebble.KeyRange{{Start: lower, End: upper}})}
}

// Metrics returns Pebble's own.
func (e *Engine) Metrics() *pebble.Metrics { return e.db.Metrics() }
