package router

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/shard"
)

// Directory finds descriptors that the cache does not hold. A node asks its copy of
// the placement table, a client asks a node.
type Directory interface {
	// Lookup returns the shard that owns key.
	Lookup(ctx context.Context, key []byte) (*shard.Descriptor, error)
}

// Place is where the cache believes a shard to be.
type Place struct {
	*shard.Descriptor
	// Leader is the node believed to lead, 0 when not known.
	Leader shard.NodeID
}

// Cache remembers where shards are. It may be stale: answers correct it. It is bounded and drops descriptors that were
// not used for a while. It is safe for concurrent use; finding a shard, which each request does, takes no lock.
//
// K1  Cached spans never overlap: a newer descriptor evicts all it overlaps.
//
// K2  A descriptor is replaced only by one of the same shard with a higher
// generation, or by a different shard that a node named as owner.
type Cache struct {
	directory Directory
	size      int

	// known is in key order. Its list is never changed, only replaced, with mu held.
	known atomic.Pointer[[]*cachedPlace]

	mu struct {
		sync.Mutex
		byID map[shard.ID]*cachedPlace // what is known
		hand int                       // where evict looks next
	}
}

type cachedPlace struct {
	*shard.Descriptor
	leader atomic.Uint64 // Place.Leader
	used   atomic.Bool   // since evict has looked at it
}

func (p *cachedPlace) place() Place {
	return Place{Descriptor: p.Descriptor, Leader: shard.NodeID(p.leader.Load())}
}

// NewCache returns an empty cache of at most size descriptors.
func NewCache(directory Directory, size int) *Cache {
	c := &Cache{directory: directory, size: max(size, 1)}
	c.known.Store(new([]*cachedPlace))
	c.mu.byID = make(map[shard.ID]*cachedPlace)
	return c
}

// Lookup returns the place of the shard that owns key.
func (c *Cache) Lookup(ctx context.Context, key []byte) (Place, error) {
	if p, ok := c.find(key); ok {
		return p, nil
	}
	d, err := c.directory.Lookup(ctx, key)
	if err != nil {
		return Place{}, fmt.Errorf("look up the shard of key %.64q: %w", key, err)
	}
	if !d.Span.Contains(key) {
		return Place{}, fmt.Errorf("look up the shard of key %.64q: got shard %d %s, which does not own it: %w", key, d.ID, d.Span, shard.ErrUnavailable)
	}
	c.Learn(d)
	return Place{Descriptor: d}, nil
}

func (c *Cache) find(key []byte) (Place, bool) {
	known := *c.known.Load()
	after, _ := slices.BinarySearchFunc(known, key, func(p *cachedPlace, key []byte) int {
		if bytes.Compare(p.Span.Start, key) > 0 {
			return 1
		}
		return -1
	})
	if after == 0 || !known[after-1].Span.Contains(key) {
		return Place{}, false
	}
	found := known[after-1]
	if !found.used.Load() { // a store takes the memory from other processors
		found.used.Store(true)
	}
	return found.place(), true
}

// Cover returns the places of all shards that overlap the span, in key order (T5).
func (c *Cache) Cover(ctx context.Context, span shard.Span) ([]Place, error) {
	var places []Place
	next := span.Start
	for {
		p, err := c.Lookup(ctx, next)
		if err != nil {
			return nil, err
		}
		places = append(places, p)
		if len(p.Span.End) == 0 || (len(span.End) > 0 && bytes.Compare(p.Span.End, span.End) >= 0) {
			return places, nil
		}
		next = p.Span.End
	}
}

// Learn adds a descriptor that a node or the placement table has supplied. Information older than
// the cache's is ignored (K2).
func (c *Cache) Learn(d *shard.Descriptor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	leader := shard.NodeID(0)
	held, ok := c.mu.byID[d.ID]
	if ok && held.Generation >= d.Generation {
		return
	}
	if !ok {
		held, ok = c.mu.byID[d.Parent] // who led the keys until now leads them probably still
	}
	if ok {
		leads := held.place().Leader
		if _, still := d.ReplicaOn(leads); still {
			leader = leads
		}
	}
	learned := &cachedPlace{Descriptor: d}
	learned.leader.Store(uint64(leader))

	// K1: everything that overlaps is evicted, whichever shard it was.
	c.keep(func(p *cachedPlace) bool { return p.ID != d.ID && !p.Span.Overlaps(d.Span) }, learned)
	if known := *c.known.Load(); len(known) > c.size {
		evicted := c.evict(known, learned)
		c.keep(func(p *cachedPlace) bool { return p != evicted })
	}
}

// keep replaces what is known by those of it that stay, and what is added. mu is held.
func (c *Cache) keep(stays func(*cachedPlace) bool, added ...*cachedPlace) {
	known := *c.known.Load()
	next := make([]*cachedPlace, 0, len(known)+len(added))
	for _, p := range known {
		if stays(p) {
			next = append(next, p)
		} else {
			delete(c.mu.byID, p.ID)
		}
	}
	for _, p := range added {
		at, _ := slices.BinarySearchFunc(next, p.Span.Start, func(q *cachedPlace, start []byte) int { return bytes.Compare(q.Span.Start, start) })
		next = slices.Insert(next, at, p)
		c.mu.byID[p.ID] = p
	}
	c.known.Store(&next)
}

// evict returns the one to drop: the next that was not used since it was looked at. spared is none. mu is held.
func (c *Cache) evict(known []*cachedPlace, spared *cachedPlace) *cachedPlace {
	for {
		c.mu.hand = (c.mu.hand + 1) % len(known)
		if p := known[c.mu.hand]; p != spared && !p.used.Swap(false) {
			return p
		}
	}
}

// Forget drops what is known about the shard, so that the next lookup asks the directory.
func (c *Cache) Forget(id shard.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.mu.byID[id]; ok {
		c.keep(func(p *cachedPlace) bool { return p.ID != id })
	}
}

// SetLeader records who leads the shard; 0 means unknown.
func (c *Cache) SetLeader(id shard.ID, node shard.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if held, ok := c.mu.byID[id]; ok {
		held.leader.Store(uint64(node))
	}
}

// Len is how many descriptors are cached.
func (c *Cache) Len() int { return len(*c.known.Load()) }
