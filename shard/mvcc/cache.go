package mvcc

import (
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// HeaderCache remembers the latest headers of a shard's keys, so that a put need not
// ask the engine for what it replaces: that read was a third of a server's CPU. It
// remembers deleted and absent keys too. It belongs to the one goroutine that applies.
type HeaderCache struct {
	lru *simplelru.LRU[string, Header]
}

// NewHeaderCache makes a cache of at most size headers, each about 150 bytes and the
// key. A size below one is one.
func NewHeaderCache(size int) *HeaderCache {
	lru, err := simplelru.NewLRU[string, Header](max(1, size), nil)
	if err != nil { // only for a size below one
		panic(err)
	}
	return &HeaderCache{lru: lru}
}

// Purge forgets everything. It must be called whenever keys change other than through
// a Writer of this cache: a restored snapshot, a span that came back.
func (c *HeaderCache) Purge() { c.lru.Purge() }

// Len is the number of headers remembered.
func (c *HeaderCache) Len() int { return c.lru.Len() }

// get looks the key up without copying it: the string lives for the call alone, and
// the cache keeps no key it was only asked for.
func (c *HeaderCache) get(key []byte) (Header, bool) {
	return c.lru.Get(unsafe.String(unsafe.SliceData(key), len(key)))
}

func (c *HeaderCache) set(key string, h Header) { c.lru.Add(key, h) }
