package mvcc

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/flotilla-kv/flotilla/shard"
)

// overlay holds the versions an unfinished update has written, which the engine does
// not show before their batch is committed. Which keys it has the header cache knows
// (cached.pending): a key that is put is looked up once, for both. A nil overlay is empty.
type overlay struct {
	// blocks are where entries live, in the order of their coming. An overlay that is used
	// again has them all.
	blocks [][]entry
	// entries lists them. Sorting waits until a span is read, or all is stored.
	entries []ordered
	sorted  bool
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
}

type version struct {
	header Header
	value  []byte
}

// at is the entry that cached.pending names.
func (o *overlay) at(pending uint32) *entry {
	i := int(pending - 1)
	return &o.blocks[i/blockEntries][i%blockEntries]
}

func (e *entry) last() *version { return &e.versions[len(e.versions)-1] }

func (e *entry) find(at shard.Revision) *version {
	for i := len(e.versions) - 1; i >= 0; i-- {
		if e.versions[i].header.Mod <= at {
			return &e.versions[i]
		}
	}
	return nil
}

// add makes the entry of a key that has none.
func (o *overlay) add(c *cached) *entry {
	n := len(o.entries)
	if n == len(o.blocks)*blockEntries {
		o.blocks = append(o.blocks, make([]entry, blockEntries))
	}
	c.pending = uint32(n + 1)
	e := o.at(c.pending)
	e.key, e.cached, e.versions = c.key, c, e.first[:0]
	o.sorted = n == 0 || o.sorted && o.entries[n-1].key < e.key
	o.entries = append(o.entries, order(e))
	return e
}

// reset makes the overlay empty.
func (o *overlay) reset() {
	for _, e := range o.entries {
		e.cached.pending = 0
		*e.entry = entry{}
	}
	clear(o.entries)
	o.entries, o.sorted = o.entries[:0], false
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
