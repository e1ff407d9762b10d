package mvcc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// overlay holds versions that were written and that the engine does
// not show before their batch is committed. Which keys it has the header cache knows
// (cached.pending): a key that is put is looked up once, for both. A nil overlay is empty.
type overlay struct {
	// other tells the two overlays of a Writer apart: 0, or otherOverlay. It is in what names
	// their entries.
	other uint32
	// blocks are where entries live, in the order of their coming. An overlay that is used
	// again has them all.
	blocks [][]entry
	// entries lists them. Sorting waits until a span is read, or all is stored.
	entries []ordered
	sorted  bool

	versions, bytes int // of all entries; bytes of keys and values
}

// ordered is an entry with the beginning of its key, by which it is mostly told from others
// without a look at the key itself, which is in no processor's cache.
type ordered struct {
	begin uint64
	*entry
}

func order(e *entry) ordered {
	var begin [8]byte
	copy(begin[:], e.key)
	return ordered{binary.BigEndian.Uint64(begin[:]), e}
}

func (a ordered) compare(b ordered) int {
	if a.begin != b.begin {
		return cmp.Compare(a.begin, b.begin)
	}
	return strings.Compare(a.key, b.key)
}

// blockEntries is how many entries a block has.
const blockEntries = 64

// entry is a key and its versions, oldest first.
type entry struct {
	key      string
	cached   *cached // what the cache remembers of the key
	versions []version
	first    [1]version // versions' room while there is one, as there mostly is
	// below is what is on its way to the store of the same key, nil for nothing.
	below *entry
}

type version struct {
	header Header
	value  []byte
}

// otherOverlay is the bit of cached.pending that says in which of two overlays the entry is.
const otherOverlay = 1 << 31

// has reports whether cached.pending names an entry of this overlay, and not of the other one.
func (o *overlay) has(pending uint32) bool { return pending&otherOverlay == o.other }

// at is the entry that cached.pending names.
func (o *overlay) at(pending uint32) *entry {
	i := int(pending&^otherOverlay - 1)
	return &o.blocks[i/blockEntries][i%blockEntries]
}

func (e *entry) last() *version { return &e.versions[len(e.versions)-1] }

// found is the header that a Writer finds.
func (v *version) found() Header {
	h := v.header
	h.Sub = 0
	return h
}

func (e *entry) find(at shard.Revision) *version {
	for ; e != nil; e = e.below {
		for i := len(e.versions) - 1; i >= 0; i-- {
			if e.versions[i].header.Mod <= at {
				return &e.versions[i]
			}
		}
	}
	return nil
}

// add makes the entry of a key that has none here. below is that of the other overlay.
func (o *overlay) add(c *cached, below *entry) *entry {
	n := len(o.entries)
	if n == len(o.blocks)*blockEntries {
		o.blocks = append(o.blocks, make([]entry, blockEntries))
	}
	c.pending = uint32(n+1) | o.other
	e := o.at(c.pending)
	e.key, e.cached, e.versions, e.below = c.key, c, e.first[:0], below
	o.sorted = n == 0 || o.sorted && o.entries[n-1].key < e.key
	o.entries = append(o.entries, order(e))
	return e
}

// push adds a version to an entry.
func (o *overlay) push(e *entry, v version) {
	e.versions = append(e.versions, v)
	o.versions++
	o.bytes += len(e.key) + len(v.value)
}

// The approximate size of a version besides key and value.
const (
	memTableOverhead = 200 // in the engine's memory
	batchOverhead    = 48  // in a batch
)

// memTableBytes is how much the versions are in the engine's memory, about.
func (o *overlay) memTableBytes() int {
	if o == nil {
		return 0
	}
	return o.bytes + o.versions*memTableOverhead
}

// batchBytes is how much the versions are in a batch, at most.
func (o *overlay) batchBytes() int {
	if o == nil {
		return 0
	}
	return o.bytes + o.versions*batchOverhead
}

// store puts all versions into a batch, in the engine's order: of two keys that
// are neighbours the second is quickly found in the engine's skip list, and finding keys
// there is most of what a commit costs.
func (o *overlay) store(b *pebble.Batch) error {
	for _, e := range o.within(shard.Everything()) {
		for i := len(e.versions) - 1; i >= 0; i-- {
			if err := store(b, e.key, &e.versions[i]); err != nil {
				return fmt.Errorf("write key %q at revision %s: %w", e.key, e.versions[i].header.Mod, err)
			}
		}
	}
	return nil
}

func store(b *pebble.Batch, key string, v *version) error {
	var header [recordHeaderMax]byte
	rec := appendHeader(header[:0], v.header)
	op := b.SetDeferred(len(key)+engine.DataKeyOverhead, len(rec)+len(v.value))
	engine.AppendDataKey(op.Key[:0], []byte(key), v.header.Mod)
	copy(op.Value[copy(op.Value, rec):], v.value)
	return op.Finish()
}

// reset makes the overlay empty.
func (o *overlay) reset() {
	for _, e := range o.entries {
		*e.entry = entry{}
	}
	clear(o.entries)
	o.entries, o.sorted = o.entries[:0], false
	o.versions, o.bytes = 0, 0
}

// within lists the entries whose keys lie in the span, in key order.
func (o *overlay) within(s shard.Span) []ordered {
	if o == nil || len(o.entries) == 0 {
		return nil
	}
	if !o.sorted {
		slices.SortFunc(o.entries, ordered.compare)
		o.sorted = true
	}
	from := o.search(s.Start)
	to := len(o.entries)
	if len(s.End) > 0 {
		to = o.search(s.End)
	}
	return o.entries[from:max(from, to)]
}

// search returns the position of the first entry at or above key.
func (o *overlay) search(key []byte) int {
	i, _ := slices.BinarySearchFunc(o.entries, string(key), func(e ordered, k string) int { return strings.Compare(e.key, k) })
	return i
}
