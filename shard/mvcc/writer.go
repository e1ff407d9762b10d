package mvcc

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// Writer collects the writes of Raft updates (many transactions) for one batch and
// reads them back before the batch is committed. It is used by one goroutine at a time, and
// it is the only writer of its keys while it lives.
//
// The caller stores what it has collected with Store, a commit of the batch and
// Finish, or has another goroutine do so (Seal), or drops it with Discard. Keys
// and values passed to Put and Delete must not change until then. Between two updates it calls
// Pause.
type Writer struct {
	r     engine.Reader
	cache *HeaderCache
	over  *overlay // nil while there is nothing to be stored
	// sealed is what another goroutine stores, nil for nothing.
	sealed *Sealed
	other  uint32 // of the next overlay: overlay.other

	// written are the entries that this update has changed, some more than once.
	written []*entry
	spans   bool // this update has read a span

	// it looks headers up in the engine as it was before the first update. Made at an update's
	// first miss and kept until its end, because making one costs several lookups.
	it   *pebble.Iterator
	seek []byte // scratch
	// waited is what Approach has read: where it is not used, the compiler leaves the reading out.
	waited uint64

	rev     shard.Revision // of the current transaction
	sub     uint32         // of its next change
	changed []Change
}

// Change is one change of the current transaction.
type Change struct {
	Key    []byte
	Header Header
	Value  []byte // nil when Header.Deleted
	// Prev is the version it replaced; the key did not exist before if not Existed.
	Prev    Header
	Existed bool
}

// NewWriter returns a Writer with nothing to store. The cache is the shard's own.
func NewWriter(r engine.Reader, cache *HeaderCache) *Writer { return &Writer{r: r, cache: cache} }

// Begin starts the next transaction: its changes get the revision and sub 0, 1, 2…
func (w *Writer) Begin(rev shard.Revision) {
	w.rev, w.sub, w.changed = rev, 0, w.changed[:0]
}

// Found is a key's latest version, including this update's writes. If the key does not exist only
// that fact may be used: some replicas still have its tombstone, others have collected it.
type Found struct {
	Header Header
	Exists bool
	// Where the key was found, so that a write need not look for it again: what was written of it
	// and not sealed, and what the cache remembers.
	entry  *entry
	cached *cached
}

// Establish must be called before anything of the span, which is all of the shard's, is written. If the store has nothing
// of it either, keys that are not remembered are not looked for there from then on (V10).
func (w *Writer) Establish(span shard.Span) error {
	lower, upper := engine.DataSpanBounds(span)
	it, err := w.r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("look for keys in %s: %w", span, err)
	}
	empty := !it.First()
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("look for keys in %s: %w", span, err)
	}
	if empty {
		w.cache.begin()
	}
	return nil
}

// Find looks a key up. The result is valid until the key is written.
func (w *Writer) Find(key []byte) (Found, error) {
	c := w.cache.get(key)
	if c == nil {
		c = w.cache.unpack(key)
	}
	if c == nil {
		var h Header
		if !w.cache.knowsAll() { // looked at last: whoever loses a header says so before
			var err error
			if h, err = w.storedHeader(key); err != nil {
				return Found{}, fmt.Errorf("read header of key %q: %w", key, err)
			}
		}
		c = w.cache.add(string(key), h)
	}
	e := w.pending(c)
	if e == nil {
		return Found{Header: c.header, Exists: exists(c.header), cached: c}, nil
	}
	h := e.last().found()
	f := Found{Header: h, Exists: !h.Deleted, cached: c}
	if w.over != nil && w.over.has(c.pending) {
		f.entry = e
	}
	return f, nil
}

// pending is what is to be stored, or on its way there, of a key; nil for nothing.
func (w *Writer) pending(c *cached) *entry {
	switch {
	case c == nil || c.pending == 0:
		return nil
	case w.over != nil && w.over.has(c.pending):
		return w.over.at(c.pending)
	default:
		return w.sealed.over.at(c.pending)
	}
}

// Header returns the latest version's header and whether the key exists, as Find does.
func (w *Writer) Header(key []byte) (Header, bool, error) {
	f, err := w.Find(key)
	return f.Header, f.Exists, err
}

// exists tells an existing key's header from a tombstone and from no version at all.
func exists(h Header) bool { return h.Mod != 0 && !h.Deleted }

// storedHeader returns the header of the key's newest version in the engine. It reads a value
// that lies apart only if it must: that is nearly half of what a lookup costs.
func (w *Writer) storedHeader(key []byte) (Header, error) {
	it, rev, err := w.newest(key)
	if it == nil || err != nil {
		return Header{}, err
	}
	flags, err := engine.Flags(it)
	if err != nil {
		return Header{}, err
	}
	if h, ok := flagged(flags, rev); ok {
		return h, nil
	}
	h, _, err := recordAt(it, rev)
	h.Sub = 0
	return h, err
}

// stored reads the key's newest version in the engine; value is valid until the next
// use of the iterator.
func (w *Writer) stored(key []byte) (h Header, value []byte, err error) {
	it, rev, err := w.newest(key)
	if it == nil || err != nil {
		return Header{}, nil, err
	}
	return recordAt(it, rev)
}

// newest returns an iterator at the key's newest version in the engine, nil if it has none.
func (w *Writer) newest(key []byte) (*pebble.Iterator, shard.Revision, error) {
	it, err := w.lookups()
	if err != nil {
		return nil, 0, err
	}
	w.seek = engine.AppendDataKey(w.seek[:0], key, latest)
	if !it.SeekPrefixGE(w.seek) {
		return nil, 0, it.Error()
	}
	_, rev, err := dataKeyAt(it)
	return it, rev, err
}

func recordAt(it *pebble.Iterator, rev shard.Revision) (Header, []byte, error) {
	rec, err := it.ValueAndErr()
	if err != nil {
		return Header{}, nil, err
	}
	return decodeRecord(rec, rev)
}

// lookups returns the iterator for single keys.
func (w *Writer) lookups() (*pebble.Iterator, error) {
	if w.it == nil {
		// L6 filters: many puts are of keys that are nowhere in the store.
		it, err := w.r.NewIter(&pebble.IterOptions{UseL6Filters: true})
		if err != nil {
			return nil, err
		}
		w.it = it
	}
	return w.it, nil
}

func (w *Writer) closeLookups() {
	if w.it != nil {
		_ = w.it.Close() // it only repeats errors that reads have returned
		w.it = nil
	}
}

// Get returns the latest version, including this update's writes; nil if the key does not exist.
// The result belongs to the caller.
func (w *Writer) Get(key []byte) (*mvccpb.KeyValue, error) {
	c := w.cache.get(key)
	if e := w.pending(c); e != nil {
		v := e.last()
		return keyValue(key, v.header, v.value), nil
	}
	if c != nil && !exists(c.header) {
		return nil, nil
	}
	h, value, err := w.stored(key)
	if err != nil {
		return nil, fmt.Errorf("read key %q: %w", key, err)
	}
	return keyValue(key, h, value), nil
}

// keyValue copies a version into what etcd clients see; nil if it does not exist.
func keyValue(key []byte, h Header, value []byte) *mvccpb.KeyValue {
	if !exists(h) {
		return nil
	}
	kv := &mvccpb.KeyValue{Key: bytes.Clone(key), Value: bytes.Clone(value)}
	h.fill(kv)
	return kv
}

// Put writes the key's next version. prev is what Find returned.
func (w *Writer) Put(key, value []byte, lease int64, prev Found) error {
	h := Header{Create: w.rev, Mod: w.rev, Version: 1, Lease: lease, Sub: w.sub}
	if prev.Exists {
		h.Create, h.Version = prev.Header.Create, prev.Header.Version+1
	}
	return w.write(key, h, value, prev)
}

// Delete writes a tombstone. The caller knows that the key exists.
func (w *Writer) Delete(key []byte) error {
	prev, err := w.Find(key)
	if err != nil {
		return err
	}
	if !prev.Exists {
		return fmt.Errorf("delete key %q at revision %s: %w", key, w.rev, shard.ErrKeyNotFound)
	}
	return w.write(key, Header{Mod: w.rev, Sub: w.sub, Deleted: true}, nil, prev)
}

func (w *Writer) write(key []byte, h Header, value []byte, prev Found) error {
	if before := prev.Header.Mod; before >= h.Mod { // V1
		return fmt.Errorf("write key %q at revision %s after revision %s: %w", key, h.Mod, before, shard.ErrCorrupt)
	}
	if w.over == nil {
		w.over = w.cache.budget.overlays.Get().(*overlay)
		w.over.other = w.other
	}
	e := prev.entry
	if e == nil {
		c := w.cache.held(prev.cached)
		e = w.over.add(c, w.pending(c))
	}
	w.over.push(e, version{header: h, value: value})
	w.written = append(w.written, e)
	w.changed = append(w.changed, Change{Key: key, Header: h, Value: value, Prev: prev.Header, Existed: prev.Exists})
	w.sub++
	return nil
}

// Size is the approximate size, in the engine's memory, of what is to be stored and not sealed.
func (w *Writer) Size() int { return w.over.memTableBytes() }

// BatchBytes is the maximum size of a batch of everything that is not sealed.
func (w *Writer) BatchBytes() int { return w.over.batchBytes() }

// ReadSpan reports whether a span was read since the last Pause: that sorts everything to be
// stored, which is expensive when there is much of it.
func (w *Writer) ReadSpan() bool { return w.spans }

// Pause ends an update whose writes will be stored together with later ones.
func (w *Writer) Pause() {
	w.closeLookups()
	clear(w.written)
	clear(w.changed)
	w.written, w.changed, w.spans = w.written[:0], w.changed[:0], false
}

// Store adds everything that was written and not sealed to the batch. Nothing may be written
// afterwards, until Finish.
func (w *Writer) Store(b *pebble.Batch) error { return w.over.store(b) }

// Fetch reads a span at a revision, including what was written; 0 is the latest. For more than one
// key it waits until sealed writes are stored.
func (w *Writer) Fetch(span shard.Span, at shard.Revision, o listing.FetchOptions) (listing.Fetched, error) {
	g := newGather(at, o)
	var err error
	if key, ok := pointOf(span); !ok {
		w.spans = true
		if err = w.sealed.Wait(); err == nil {
			err = fetchSpan(w.r, w.over, span, g)
		}
	} else if v := w.pending(w.cache.get(key)).find(g.at); v != nil {
		g.addPending(key, v)
	} else if it, e := w.lookups(); e != nil {
		err = e
	} else {
		err = fetchPoint(it, key, g)
	}
	if err != nil {
		return listing.Fetched{}, fmt.Errorf("fetch %s at revision %s: %w", span, at, err)
	}
	return g.out, nil
}

// Changed lists the changes since Begin in order. It is valid until the next Begin.
func (w *Writer) Changed() []Change { return w.changed }

// Finish updates the cache after the batch was committed: only now may others see the new headers
// (V4). The Writer then has nothing to store. Nothing may be sealed.
func (w *Writer) Finish() {
	w.Pause()
	w.settle(w.over)
	w.over = nil
}

// settle tells the cache of what is in the store now, and makes the overlay another's.
func (w *Writer) settle(o *overlay) {
	if o == nil {
		return
	}
	for _, e := range o.entries {
		c := e.cached
		if !o.has(c.pending) { // it was written again meanwhile
			w.over.at(c.pending).below = nil
			continue
		}
		c.header, c.pending = e.last().found(), 0
		w.cache.release(c)
	}
	w.recycle(o)
}

func (w *Writer) recycle(o *overlay) {
	o.reset()
	w.cache.budget.overlays.Put(o)
}

// Discard drops what was written and not stored. If some of it is sealed, the store's contents are
// unknown, and the cache must be purged.
func (w *Writer) Discard() {
	w.Pause()
	if w.over != nil {
		for _, e := range w.over.entries {
			e.cached.pending = 0
		}
		w.recycle(w.over)
	}
	w.cache.forget()
	w.over, w.sealed = nil, nil
}
