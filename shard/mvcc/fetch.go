package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// latest is the revision to read at for the newest version of every key.
const latest = shard.Revision(math.MaxInt64)

// Fetch reads the span as it was at a revision; 0 means the latest. The caller has checked the
// revision against the compaction revision. The result belongs to the caller.
func Fetch(r engine.Reader, span shard.Span, at shard.Revision, o listing.FetchOptions) (listing.Fetched, error) {
	g := newGather(at, o)
	var err error
	if key, ok := pointOf(span); ok {
		err = fetchKey(r, key, g)
	} else {
		err = fetchSpan(r, nil, span, g)
	}
	if err != nil {
		return listing.Fetched{}, fmt.Errorf("fetch %s at revision %s: %w", span, at, err)
	}
	return g.finish()
}

// pointOf returns the only key the span can hold, if it is such a span.
func pointOf(s shard.Span) ([]byte, bool) {
	n := len(s.Start)
	if len(s.End) == n+1 && s.End[n] == 0 && bytes.Equal(s.End[:n], s.Start) {
		return s.Start, true
	}
	return nil, false
}

func fetchKey(r engine.Reader, key []byte, g *gather) (err error) {
	it, err := r.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	return fetchPoint(it, key, g)
}

// fetchPoint reads one key through an iterator without bounds.
func fetchPoint(it *pebble.Iterator, key []byte, g *gather) error {
	g.seek = engine.AppendDataKey(g.seek[:0], key, g.at)
	if !it.SeekPrefixGE(g.seek) {
		return it.Error()
	}
	_, rev, err := dataKeyAt(it)
	if err != nil {
		return err
	}
	return g.addStored(key, rev, it)
}

// fetchSpan merges two ordered streams: the engine's keys, and those of the overlay
// of an update that is not committed. Where both have a key, a visible version of the
// overlay is newer than any of the engine.
func fetchSpan(r engine.Reader, over *overlay, span shard.Span, g *gather) (err error) {
	if span.Empty() {
		return nil
	}
	lower, upper := engine.DataSpanBounds(span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()

	pending := over.within(span)
	for valid := it.First(); valid && !g.done(); {
		key, rev, err := dataKeyAt(it)
		if err != nil {
			return err
		}
		for len(pending) > 0 && pending[0].key < string(key) {
			g.addEntry(pending[0].entry)
			pending = pending[1:]
		}
		if len(pending) > 0 && pending[0].key == string(key) {
			shadowed := g.addEntry(pending[0].entry)
			pending = pending[1:]
			if shadowed {
				valid = it.NextPrefix()
				continue
			}
		}
		if rev > g.at {
			same := false
			if same, rev, err = g.seekVisible(it, key); err != nil {
				return err
			}
			if !same { // every version of key is newer
				valid = it.Valid()
				continue
			}
			key = g.key
		}
		if err := g.addStored(key, rev, it); err != nil {
			return err
		}
		if g.uncounted >= countedBytes {
			if err := g.count(); err != nil {
				return err
			}
		}
		valid = it.NextPrefix()
	}
	for _, e := range pending {
		g.addEntry(e.entry)
	}
	return it.Error()
}

func dataKeyAt(it *pebble.Iterator) ([]byte, shard.Revision, error) {
	key, rev, ok := engine.DecodeDataKey(it.Key())
	if !ok {
		return nil, 0, fmt.Errorf("data key %x: %w", it.Key(), shard.ErrCorrupt)
	}
	return key, rev, nil
}

// gather collects what a fetch finds. It takes memory in blocks, because a large
// list would otherwise be three allocations per key.
type gather struct {
	at  shard.Revision
	o   listing.FetchOptions
	out listing.Fetched

	key   []byte // scratch: the key seekVisible looks for, which outlives the iterator's
	seek  []byte // scratch
	kvs   []mvccpb.KeyValue
	bytes []byte

	size      int64 // of what is in out
	uncounted int   // bytes of out for which no room was asked yet
}

// countedBytes is how much is gathered before room is asked for it.
const countedBytes = 64 << 10

// count asks for room for what was gathered.
func (g *gather) count() error {
	n := g.uncounted
	g.uncounted = 0
	if g.o.Room == nil {
		return nil
	}
	return g.o.Room.Add(n)
}

// finish returns what was gathered.
func (g *gather) finish() (listing.Fetched, error) {
	if err := g.count(); err != nil {
		return listing.Fetched{}, err
	}
	return g.out, nil
}

func newGather(at shard.Revision, o listing.FetchOptions) *gather {
	if at == 0 {
		at = latest
	}
	return &gather{at: at, o: o}
}

// stepsBeforeSeek is how many too recent versions are stepped over before seeking: few keys have
// more, and a step costs a tenth of a seek.
const stepsBeforeSeek = 4

// seekVisible moves the iterator from a version of key newer than g.at to the newest
// one that is not, or to the next key if there is none. It leaves key in g.key.
func (g *gather) seekVisible(it *pebble.Iterator, key []byte) (same bool, rev shard.Revision, err error) {
	g.key = append(g.key[:0], key...)
	for i := 0; ; i++ {
		var valid bool
		if i == stepsBeforeSeek {
			g.seek = engine.AppendDataKey(g.seek[:0], g.key, g.at)
			valid = it.SeekGE(g.seek)
		} else {
			valid = it.Next()
		}
		if !valid {
			return false, 0, it.Error()
		}
		if key, rev, err = dataKeyAt(it); err != nil {
			return false, 0, err
		}
		if !bytes.Equal(key, g.key) {
			return false, 0, nil
		}
		if rev <= g.at {
			return true, rev, nil
		}
	}
}

// addStored takes the version the iterator stands on.
func (g *gather) addStored(key []byte, rev shard.Revision, it *pebble.Iterator) error {
	flags, err := engine.Flags(it)
	if err != nil {
		return fmt.Errorf("flags of key %q at revision %s: %w", key, rev, err)
	}
	if flags&flagDeleted != 0 || !g.wanted() {
		return nil
	}
	if h, ok := flagged(flags, rev); ok && g.o.KeysOnly {
		g.add(key, &h, nil)
		return nil
	}
	rec, err := it.ValueAndErr()
	if err != nil {
		return fmt.Errorf("value of key %q at revision %s: %w", key, rev, err)
	}
	h, value, err := decodeRecord(rec, rev)
	if err != nil {
		return fmt.Errorf("key %q at revision %s: %w", key, rev, err)
	}
	g.add(key, &h, value)
	return nil
}

// addEntry takes the visible version of an overlay's key and reports whether there
// was one.
func (g *gather) addEntry(e *entry) bool {
	v := e.find(g.at)
	if v == nil {
		return false
	}
	g.addPending([]byte(e.key), v)
	return true
}

func (g *gather) addPending(key []byte, v *version) {
	if v.header.Deleted || !g.wanted() {
		return
	}
	g.add(key, &v.header, v.value)
}

// done reports whether nothing more need be looked at.
func (g *gather) done() bool { return g.out.More || g.o.Done(len(g.out.KVs)) }

// wanted counts an existing key and reports whether it is to be returned too.
func (g *gather) wanted() bool {
	if g.done() {
		return false
	}
	g.out.Count++
	return !g.o.CountOnly && (g.o.Limit <= 0 || int64(len(g.out.KVs)) < g.o.Limit)
}

func (g *gather) add(key []byte, h *Header, value []byte) {
	kv := g.newKV()
	kv.Key = g.copy(key)
	h.fill(kv)
	if g.o.KeysOnly {
		kv.Lease = 0
	} else {
		kv.Value = g.copy(value)
	}
	g.out.KVs = append(g.out.KVs, kv)
	n := listing.PairBytes(key, kv.Value)
	g.uncounted += n
	g.size += int64(n)
	g.out.More = g.o.Bytes > 0 && g.size >= g.o.Bytes
}

func (g *gather) newKV() *mvccpb.KeyValue {
	if len(g.kvs) == 0 {
		n := min(max(1, len(g.out.KVs)), 256) // doubles what is there: a point read takes one
		if g.o.Limit > 0 {
			n = min(n, int(g.o.Limit)-len(g.out.KVs))
		}
		g.kvs = make([]mvccpb.KeyValue, n)
	}
	kv := &g.kvs[0]
	g.kvs = g.kvs[1:]
	return kv
}

// bytesBlock is the block from which keys and values of a list are allocated; larger ones get
// memory of their own.
const bytesBlock = 16 << 10

func (g *gather) copy(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if len(b) > len(g.bytes) {
		if len(g.out.KVs) < 8 || len(b) > bytesBlock/4 {
			return bytes.Clone(b)
		}
		g.bytes = make([]byte, bytesBlock)
	}
	n := copy(g.bytes, b)
	out := g.bytes[:n:n]
	g.bytes = g.bytes[n:]
	return out
}
