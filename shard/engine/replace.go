package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/flotilla-kv/flotilla/shard"
)

// KV is a record under its full key: a local record (LocalKey), which a nil Value removes, or a lease of the span
// (LeaseKey).
type KV struct{ Key, Value []byte }

// tableBytesMax bounds one table of a Replace. A compaction rewrites whole tables, so a larger one would be rewritten
// for a small overlap.
const tableBytesMax = 64 << 20

// Replace exchanges all data of the span, including its leases and attached keys, for what build writes, together
// with the records, atomically and durably (E3). If build writes nothing, the span is cleared. If build fails,
// nothing has changed.
//
// The order of the steps matters. An ingest is not ordered with respect to batches: it could become durable before
// commits that precede it, or after commits that follow it (E1). So Replace first syncs everything committed (1),
// then changes the span and the records in one step (2), and syncs that step (3) before anybody may commit on top of
// it.
//
// Syncing first also keeps other shards from waiting: an ingest that finds keys of the span in memory may have to
// wait for their flush, and meanwhile the commits of all shards would wait for the ingest.
func (e *Engine) Replace(span shard.Span, build func(w *SSTWriter) error, records ...KV) error {
	return e.ReplaceIf(span, func() error { return nil }, build, records...)
}

// ReplaceIf is Replace, unless may returns an error. may looks at who has the keys, after build, which can take
// minutes, and again whenever that changes before the data is replaced (E9).
func (e *Engine) ReplaceIf(span shard.Span, may func() error, build func(w *SSTWriter) error, records ...KV) error {
	w := &SSTWriter{e: e, span: span}
	if err := e.replace(w, may, build, records); err != nil {
		return fmt.Errorf("replace data of %s: %w", span, errors.Join(err, w.discard()))
	}
	return nil
}

func (e *Engine) replace(w *SSTWriter, may func() error, build func(w *SSTWriter) error, records []KV) error {
	if w.span.Empty() {
		return errors.New("the span is empty")
	}
	if build != nil {
		if err := build(w); err != nil {
			return err
		}
	}
	if err := w.finishTable(); err != nil {
		return err
	}
	if err := w.writeRecords(records); err != nil {
		return err
	}
	if err := w.writeAttached(); err != nil {
		return err
	}
	if err := syncDir(e.fs, e.incoming); err != nil {
		return err
	}
	if err := e.SyncAtLeisure(); err != nil { // the first step has little left to hurry with
		return err
	}
	for ingested := false; !ingested; {
		var err error
		if ingested, err = e.ingest(w, may); err != nil {
			return err
		}
	}
	return e.Sync() // 3
}

// ingest does the first two steps. It returns false if who has which keys has changed between them: the first step
// did not make that durable.
func (e *Engine) ingest(w *SSTWriter, may func() error) (bool, error) {
	seen := e.Owners.seen()
	if err := may(); err != nil {
		return false, err
	}
	if err := e.Sync(); err != nil { // 1
		return false, err
	}
	if !e.Owners.lockUnchanged(seen) {
		return false, nil
	}
	defer e.Owners.Unlock()
	lower, upper := DataSpanBounds(w.span)
	_, err := e.db.IngestAndExcise(context.Background(), w.paths, nil, nil, pebble.KeyRange{Start: lower, End: upper}) // 2
	if err != nil {
		return false, fmt.Errorf("ingest %d tables: %w", len(w.paths), err)
	}
	w.paths = nil // ingested: the store has removed these names
	e.changes.Add(1)
	return true, nil
}

// SSTWriter takes the new data of a span being replaced.
type SSTWriter struct {
	e    *Engine
	span shard.Span

	paths []string        // of all tables, including the open one
	table *sstable.Writer // nil between tables
	last  []byte          // user key of the last Put
	buf   []byte

	attached [][]byte // AttachedKeys to be set
}

// Put adds one version of a key. Keys must come in order, and the versions of a key newest first, as iterators return
// them. value is in its stored form.
func (w *SSTWriter) Put(key []byte, rev shard.Revision, value []byte) error {
	if !w.span.Contains(key) {
		return fmt.Errorf("key %q lies outside of the span: %w", key, shard.ErrCorrupt)
	}
	// All versions of a key stay in one table, so that one bloom filter covers them.
	if w.table != nil && !bytes.Equal(key, w.last) && w.table.Raw().EstimatedSize() >= tableBytesMax {
		if err := w.finishTable(); err != nil {
			return err
		}
	}
	if w.table == nil {
		if err := w.newTable(); err != nil {
			return err
		}
	}
	w.last = append(w.last[:0], key...)
	w.buf = AppendDataKey(w.buf[:0], key, rev)
	if err := w.table.Set(w.buf, value); err != nil {
		return fmt.Errorf("add key %q at revision %s to table: %w", key, rev, err)
	}
	return nil
}

func (w *SSTWriter) newTable() error {
	path := w.e.fs.PathJoin(w.e.incoming, fmt.Sprintf("%06d.sst", w.e.received.Add(1)))
	f, err := w.e.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create table: %w", err)
	}
	w.paths = append(w.paths, path)
	w.table = sstable.NewWriter(objstorageprovider.NewFileWritable(f), w.e.opts.MakeWriterOptions(0, pebbleFormat.MaxTableFormat()))
	return nil
}

// finishTable closes the open table, which syncs it.
func (w *SSTWriter) finishTable() error {
	if w.table == nil {
		return nil
	}
	t := w.table
	w.table = nil
	if err := t.Close(); err != nil {
		return fmt.Errorf("finish table: %w", err)
	}
	return nil
}

// discard removes the files of a failed Replace. Otherwise the next Open would.
func (w *SSTWriter) discard() error {
	var errs []error
	if w.table != nil {
		_ = w.table.Close() // its file is removed next
		w.table = nil
	}
	for _, p := range w.paths {
		if err := w.e.fs.Remove(p); err != nil {
			errs = append(errs, fmt.Errorf("remove unfinished table: %w", err))
		}
	}
	return errors.Join(errs...)
}
