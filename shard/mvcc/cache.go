package mvcc

import (
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/flotilla-kv/flotilla/shard"
)

// HeaderCache remembers the latest headers of a shard's keys, so that a put need not
// ask the engine for what it replaces: that read was a third of a server's CPU. It
// remembers deleted and absent keys too. It belongs to the one goroutine that applies.
type HeaderCache struct {
	lru    *simplelru.LRU[string, Header]
	budget *HeaderBudget
	// taken is how many of lru's headers are the budget's; the first budget.own are not.
	taken int
}

// HeaderBudget bounds the caches of all shards of a node together. A cache takes from
// it as its shard's keys are written; when nothing is left it replaces its own oldest.
type HeaderBudget struct {
	own  int // what every cache may keep besides
	left atomic.Int64
}

// NewHeaderBudget allows shared headers to all caches together, each about 150 bytes
// and the key, and own ones to every single cache, so that a shard that becomes busy
// when the rest is used up is not without. At least one header is kept.
func NewHeaderBudget(shared, own int) *HeaderBudget {
	b := &HeaderBudget{own: max(own, 1)}
	b.left.Store(int64(shared))
	return b
}

func (b *HeaderBudget) take() bool {
	if b.left.Add(-1) >= 0 {
		return true
	}
	b.left.Add(1)
	return false
}

// NewHeaderCache makes a cache that shares the budget with others.
func NewHeaderCache(budget *HeaderBudget) *HeaderCache {
	lru, err := simplelru.NewLRU[string, Header](math.MaxInt, nil)
	if err != nil { // only for a size below one
		panic(err)
	}
	return &HeaderCache{lru: lru, budget: budget}
}

// Purge forgets everything. It must be called whenever keys change other than through
// a Writer of this cache: a restored snapshot, a span that came back; and when the
// cache is given up, because it returns what it took from the budget.
func (c *HeaderCache) Purge() {
	c.lru.Purge()
	c.budget.left.Add(int64(c.taken))
	c.taken = 0
}

// Keep forgets what it remembers of other keys than the span's.
func (c *HeaderCache) Keep(span shard.Span) {
	for _, key := range c.lru.Keys() {
		if !span.Contains([]byte(key)) {
			c.lru.Remove(key)
		}
	}
	used := min(c.taken, max(0, c.lru.Len()-c.budget.own))
	c.budget.left.Add(int64(c.taken - used))
	c.taken = used
}

// Len is the number of headers remembered.
func (c *HeaderCache) Len() int { return c.lru.Len() }

// get looks the key up without copying it: the string lives for the call alone, and
// the cache keeps no key it was only asked for.
func (c *HeaderCache) get(key []byte) (Header, bool) {
	return c.lru.Get(unsafe.String(unsafe.SliceData(key), len(key)))
}

func (c *HeaderCache) set(key string, h Header) {
	before := c.lru.Len()
	c.lru.Add(key, h)
	if c.lru.Len() == before || c.lru.Len() <= c.budget.own {
		return
	}
	if c.budget.take() {
		c.taken++
		return
	}
	c.lru.RemoveOldest()
}
