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

// KV is a record by its full key: a local one (LocalKey), of which a nil Value removes
// it, or a lease of the span (LeaseKey).
type KV struct{ Key, Value []byte }

// tableBytesMax bounds one table of a Replace. A table is the unit of compaction:
// larger ones would be rewritten whole for small overlaps.
const tableBytesMax = 64 << 20

// Replace swaps all data of the span, its leases and attached keys included, for what
// build writes, together with the records, atomically and durably (E3). build may write
// nothing: then the span is cleared. When build fails, nothing has changed.
//
// The order is the protocol. An ingest is not in one order with batches; alone it could be
// durable before commits that precede it, or later than ones that follow (E1). So everything
// committed is synced (1), then the span and the records change in one step (2), and that step
// is synced (3) before anybody may commit on top of it.
//
// Syncing first is also why nobody waits: an ingest that finds keys of the span in memory may
// wait for their flush, and all commits of all shards wait behind it.
func (e *Engine) Replace(span shard.Span, build func(w *SSTWriter) error, records ...KV) error {
	w := &SSTWriter{e: e, span: span}
	if err := e.replace(w, build, records); err != nil {
		return fmt.Errorf("replace data of %s: %w", span, errors.Join(err, w.discard()))
	}
	return nil
}

func (e *Engine) replace(w *SSTWriter, build func(w *SSTWriter) error, records []KV) error {
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
	if err := e.Sync(); err != nil { // 1
		return err
	}
	lower, upper := DataSpanBounds(w.span)
	_, err := e.db.IngestAndExcise(context.Background(), w.paths, nil, nil, pebble.KeyRange{Start: lower, End: upper}) // 2
	if err != nil {
		return fmt.Errorf("ingest %d tables: %w", len(w.paths), err)
	}
	w.paths = nil // ingested: the store has removed our names for them
	e.changes.Add(1)
	return e.Sync() // 3
}

// SSTWriter takes the new data of a span being replaced.
type SSTWriter struct {
	e    *Engine
	span shard.Span

	paths []string        // of all tables, the open one included
	table *sstable.Writer // nil between tables
	last  []byte          // user key of the last Put
	buf   []byte

	attached [][]byte // AttachedKeys to be set
}

// Put adds one version of a key. Keys must come in order, versions of one key newest
// first, as iterators give them; value is as stored.
func (w *SSTWriter) Put(key []byte, rev shard.Revision, value []byte) error {
	if !w.span.Contains(key) {
		return fmt.Errorf("key %q lies outside of the span: %w", key, shard.ErrCorrupt)
	}
	// Versions of one key stay in one table, so that its bloom filter speaks for them.
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

// discard removes the files of a Replace that failed. Open would too.
func (w *SSTWriter) discard() error {
	var errs []error
	if w.table != nil {
		_ = w.table.Close() // its file goes next
		w.table = nil
	}
	for _, p := range w.paths {
		if err := w.e.fs.Remove(p); err != nil {
			errs = append(errs, fmt.Errorf("remove unfinished table: %w", err))
		}
	}
	return errors.Join(errs...)
}
