package mvcc

import (
	"slices"
	"strings"

	"github.com/flotilla-kv/flotilla/shard"
)

// overlay holds the versions an unfinished update has written, which the engine does
// not show before their batch is committed. A nil overlay is empty.
type overlay struct {
	byKey map[string]*entry
	// entries holds all of byKey; the first sorted of them are in key order. Sorting
	// waits until a span is read: most updates read none.
	entries []*entry
	sorted  bool
	block   []entry // entries are taken from here, so that not each is an allocation
}

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

func (o *overlay) get(key []byte) *entry {
	if o == nil {
		return nil
	}
	return o.byKey[string(key)]
}

// find returns the newest version of the key that is not newer than at, or nil.
func (o *overlay) find(key []byte, at shard.Revision) *version {
	if e := o.get(key); e != nil {
		return e.find(at)
	}
	return nil
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
	if len(o.block) == 0 {
		o.block = make([]entry, min(max(1, len(o.entries)), 64)) // doubles what is there
	}
	e := &o.block[0]
	o.block = o.block[1:]
	e.key, e.cached, e.versions = c.key, c, e.first[:0]
	if o.byKey == nil {
		o.byKey = make(map[string]*entry)
	}
	o.byKey[e.key] = e
	o.sorted = o.sorted && o.entries[len(o.entries)-1].key < e.key
	o.entries = append(o.entries, e)
	return e
}

// within lists the entries whose keys lie in the span, in key order.
func (o *overlay) within(s shard.Span) []*entry {
	if o == nil || len(o.entries) == 0 {
		return nil
	}
	if !o.sorted {
		slices.SortFunc(o.entries, func(a, b *entry) int { return strings.Compare(a.key, b.key) })
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
	i, _ := slices.BinarySearchFunc(o.entries, string(key), func(e *entry, k string) int { return strings.Compare(e.key, k) })
	return i
}
