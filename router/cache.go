package router

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/google/btree"
	lru "github.com/hashicorp/golang-lru/v2"

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

// Cache remembers where shards are. It may be stale: answers correct it. It is bounded and drops the least recently
// used descriptors. It is safe for concurrent use.
//
// K1  Cached spans never overlap: a newer descriptor evicts all it overlaps.
//
// K2  A descriptor is replaced only by one of the same shard with a higher
// generation, or by a different shard that a node named as owner.
type Cache struct {
	directory Directory

	mu struct {
		sync.Mutex
		byID    *lru.Cache[shard.ID, *Place] // eviction also leaves byStart
		byStart *btree.BTreeG[*Place]
		pivot   Place // find's: what it compares with, made once
	}
}

// NewCache returns an empty cache of at most size descriptors.
func NewCache(directory Directory, size int) *Cache {
	c := &Cache{directory: directory}
	c.mu.pivot.Descriptor = &shard.Descriptor{}
	c.mu.byStart = btree.NewG(32, func(a, b *Place) bool {
		return bytes.Compare(a.Span.Start, b.Span.Start) < 0
	})
	byID, err := lru.NewWithEvict(max(size, 1), func(_ shard.ID, p *Place) {
		if held, ok := c.mu.byStart.Get(p); ok && held == p {
			c.mu.byStart.Delete(p)
		}
	})
	if err != nil { // only for a size below 1
		panic(err)
	}
	c.mu.byID = byID
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
	c.mu.Lock()
	defer c.mu.Unlock()
	var found *Place
	c.mu.pivot.Span.Start = key
	c.mu.byStart.DescendLessOrEqual(&c.mu.pivot, func(p *Place) bool {
		found = p
		return false
	})
	c.mu.pivot.Span.Start = nil // the caller's
	if found == nil || !found.Span.Contains(key) {
		return Place{}, false
	}
	c.mu.byID.Get(found.ID) // mark as used
	return *found, true
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
	held, ok := c.mu.byID.Peek(d.ID)
	if ok && held.Generation >= d.Generation {
		return
	}
	if !ok {
		held, ok = c.mu.byID.Peek(d.Parent) // who led the keys until now leads them probably still
	}
	if ok {
		if _, still := d.ReplicaOn(held.Leader); still {
			leader = held.Leader
		}
	}
	// K1: everything that overlaps is evicted, whichever shard it was.
	var overlapping []shard.ID
	pivot := &Place{Descriptor: d}
	c.mu.byStart.DescendLessOrEqual(pivot, func(p *Place) bool {
		if p.Span.Overlaps(d.Span) {
			overlapping = append(overlapping, p.ID)
		}
		return false
	})
	c.mu.byStart.AscendGreaterOrEqual(pivot, func(p *Place) bool {
		if !p.Span.Overlaps(d.Span) {
			return false
		}
		overlapping = append(overlapping, p.ID)
		return true
	})
	for _, id := range overlapping {
		c.mu.byID.Remove(id)
	}
	c.mu.byID.Remove(d.ID)
	place := &Place{Descriptor: d, Leader: leader}
	c.mu.byStart.ReplaceOrInsert(place)
	c.mu.byID.Add(d.ID, place)
}

// Forget drops what is known about the shard, so that the next lookup asks the directory.
func (c *Cache) Forget(id shard.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.byID.Remove(id)
}

// SetLeader records who leads the shard; 0 means unknown.
func (c *Cache) SetLeader(id shard.ID, node shard.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held, ok := c.mu.byID.Peek(id)
	if !ok || held.Leader == node {
		return
	}
	held.Leader = node
}

// Len is how many descriptors are cached.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.byID.Len()
}
