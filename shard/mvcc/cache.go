package mvcc

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/shard"
)

// HeaderCache remembers the latest headers of a shard's keys, so that a put need not
// ask the engine for what it replaces: that read was a third of a server's CPU. It
// remembers deleted and absent keys too. It belongs to the one goroutine that applies.
//
// What goes first is found by a clock hand, not by a list in the order of use: reading
// writes one flag, where moving an element of a list touches three others, which are in
// no processor's cache.
type HeaderCache struct {
	byKey headerTable
	ring  []*cached // all of byKey
	hand  int       // in ring
	// taken is how many of the headers are the budget's; the first budget.own are not.
	taken  int
	budget *HeaderBudget
	// displaced are headers that had to go while versions of their keys were to be stored. They
	// can be found until that is done.
	displaced map[string]*cached
	// owner is whose the headers are that the cache had no room for any more. A cache shares it
	// with those of shards that were split off, which never have a key in common.
	owner uint64
}

// cached is a key's latest header. It is never another key's.
type cached struct {
	key    string
	header Header
	used   bool // since the hand passed
	gone   bool // not in the cache any more
	// pending says in which overlay a Writer keeps what it wrote of the key, and where there:
	// overlay.has and overlay.at. 0: it wrote nothing that is not stored.
	pending uint32
}

// HeaderBudget bounds the caches of all shards of a node together. A cache takes from it as its
// shard's keys are written; when nothing is left it evicts its own oldest entries.
type HeaderBudget struct {
	own  int // what every cache may keep besides
	left atomic.Int64
	// packed has what the caches had no room for.
	packed *packed
	// heirs are the owners of what was given away, by shard.ID.
	heirs sync.Map
	// overlays are those that no Writer uses.
	overlays sync.Pool
}

// NewHeaderBudget allows shared headers to all caches together, each about 150 bytes plus the key,
// and own headers to every single cache, so that a shard that becomes busy when the rest is used up
// still has some. At least one header is kept. Evicted headers are kept packed in packedBytes more,
// where a header takes about 20 bytes plus the key.
func NewHeaderBudget(shared, own, packedBytes int) *HeaderBudget {
	b := &HeaderBudget{own: max(own, 1), packed: newPacked(packedBytes), overlays: sync.Pool{New: func() any { return &overlay{} }}}
	b.left.Store(int64(shared))
	return b
}

// Left is how many of the shared headers are not taken.
func (b *HeaderBudget) Left() int { return int(b.left.Load()) }

// PackedBytes is the size of the packed headers.
func (b *HeaderBudget) PackedBytes() int64 { return b.packed.bytes.Load() }

func (b *HeaderBudget) take() bool {
	if b.left.Add(-1) >= 0 {
		return true
	}
	b.left.Add(1)
	return false
}

// NewHeaderCache makes a cache that shares the budget with others.
func NewHeaderCache(budget *HeaderBudget) *HeaderCache {
	return &HeaderCache{byKey: newHeaderTable(), budget: budget, owner: budget.packed.owner()}
}

// Purge empties the cache. It must be called whenever keys change other than through a Writer of
// this cache (a restored snapshot, a span that came back), and when the cache is discarded, because
// it returns what it took from the budget.
func (c *HeaderCache) Purge() {
	c.budget.left.Add(int64(c.taken))
	*c = *NewHeaderCache(c.budget)
}

// begin must only be called while the store has no version of any key of the shard, and nothing was written: from then
// on a key that is not remembered is one that was never written, until a header is lost (V10).
func (c *HeaderCache) begin() { c.budget.packed.whole.Store(c.owner, struct{}{}) }

// knowsAll reports whether a key that is remembered neither here nor packed is nowhere in the store (V10).
func (c *HeaderCache) knowsAll() bool { return c.budget.packed.isWhole(c.owner) }

// forget drops headers that had to stay because of what will not be stored now.
func (c *HeaderCache) forget() {
	if len(c.displaced) > 0 {
		c.budget.packed.lose(c.owner)
	}
	c.displaced = nil
}

// Keep gives the headers of keys outside the span to the shard that owns those keys from now on; 0:
// to nobody. All that was written must be stored.
func (c *HeaderCache) Keep(span shard.Span, heir shard.ID) {
	c.ring = slices.DeleteFunc(c.ring, func(h *cached) bool {
		gone := !span.Contains([]byte(h.key))
		if gone {
			c.byKey.remove(h)
			if h.pending != 0 {
				c.budget.packed.lose(c.owner)
			} else if heir != 0 {
				c.pack(h)
			}
		}
		return gone
	})
	if len(c.displaced) > 0 {
		c.budget.packed.lose(c.owner)
	}
	c.hand = 0
	used := min(c.taken, max(0, len(c.ring)-c.budget.own))
	c.budget.left.Add(int64(c.taken - used))
	c.taken = used
	if heir != 0 {
		c.budget.heirs.Store(heir, c.owner)
	}
}

// Inherit takes over what was given to the shard, which starts with its keys as they were then.
func (c *HeaderCache) Inherit(id shard.ID) {
	if owner, ok := c.budget.heirs.LoadAndDelete(id); ok {
		c.owner = owner.(uint64)
	}
}

// Widen must be called when the shard receives keys of another one, before any of them is looked
// up: they may have been its own before, and headers that were evicted then may be stale.
func (c *HeaderCache) Widen() { c.owner = c.budget.packed.owner() }

// Len is the number of headers in the cache.
func (c *HeaderCache) Len() int { return len(c.ring) }

// get returns what is remembered of the key, nil for nothing.
func (c *HeaderCache) get(key []byte) *cached {
	if h := c.byKey.find(c.byKey.hash(key), key); h != nil {
		h.used = true
		return h
	}
	return c.displaced[string(key)]
}

// held returns what get returns of h's key, which is found from now on until it is released.
func (c *HeaderCache) held(h *cached) *cached {
	if !h.gone {
		return h
	}
	if found := c.get([]byte(h.key)); found != nil {
		return found
	}
	c.displace(h)
	return h
}

func (c *HeaderCache) displace(h *cached) {
	if c.displaced == nil {
		c.displaced = make(map[string]*cached)
	}
	c.displaced[h.key] = h
}

// release lets a header go that had to stay.
func (c *HeaderCache) release(h *cached) {
	if h.gone {
		delete(c.displaced, h.key)
		c.pack(h)
	}
}

// pack keeps a header that has to go.
func (c *HeaderCache) pack(h *cached) {
	if h.header.Mod != 0 || !c.knowsAll() { // that there is no version need not be remembered then
		c.budget.packed.put(c.owner, h.key, h.header)
	}
}

// unpack brings back a key's header that had to go; nil if it is not there.
func (c *HeaderCache) unpack(key []byte) *cached {
	h, ok := c.budget.packed.take(c.owner, key)
	if !ok {
		return nil
	}
	return c.add(string(key), h)
}

// add remembers a key that is not remembered yet.
func (c *HeaderCache) add(key string, h Header) *cached {
	fresh := &cached{key: key, header: h}
	switch {
	case len(c.ring) < c.budget.own:
		c.ring = append(c.ring, fresh)
	case c.budget.take():
		c.taken++
		c.ring = append(c.ring, fresh)
	default:
		c.replace(fresh)
	}
	c.byKey.add(fresh)
	return fresh
}

// replace puts a header in the place of one that was not used for a round of the hand.
func (c *HeaderCache) replace(fresh *cached) {
	for c.ring[c.hand].used {
		c.ring[c.hand].used = false
		c.advance()
	}
	old := c.ring[c.hand]
	c.byKey.remove(old)
	if old.gone = true; old.pending != 0 {
		c.displace(old)
	} else {
		c.pack(old)
	}
	c.ring[c.hand] = fresh
	c.advance()
}

func (c *HeaderCache) advance() { c.hand = (c.hand + 1) % len(c.ring) }
