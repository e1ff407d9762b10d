package mvcc

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
)

// Trails lists changes for readers that catch up with a span, and remembers where the next ones
// are, so that a reader that comes back for more does not pay for another scan over all of them. It
// keeps the most recently used trails, within its bytes. It is safe for concurrent use.
type Trails struct {
	bytesMax, trailMax int // immutable

	mu struct {
		sync.Mutex
		trails *simplelru.LRU[trailKey, *Trail]
		bytes  int
	}
}

// trailKey is a span.
type trailKey struct{ start, end string }

// NewTrails returns Trails for one node that keep about bytesMax bytes.
func NewTrails(bytesMax int) *Trails {
	t := &Trails{bytesMax: bytesMax, trailMax: min(trailBytesMax, bytesMax)}
	// Bytes bound it; no number of trails does before.
	trails, err := simplelru.NewLRU(bytesMax/trailBytes+1, func(_ trailKey, gone *Trail) { t.mu.bytes -= gone.bytes })
	if err != nil {
		panic(err) // only for a size below 1
	}
	t.mu.trails = trails
	return t
}

// EventsOptions says which changes to list.
type EventsOptions struct {
	// Limit bounds what one call lists. The last revision listed is whole nevertheless. 0 means no
	// limit.
	Limit int
	// PrevKV adds the previous version of each key that had one.
	PrevKV bool
}

// Events lists the changes of the span with revisions in (from, to], ordered by
// revision and, inside one, as they were made. Every change up to and including
// through is listed; through is to unless the limit, or the size of a trail, cut the list.
//
// The caller has checked that from is not below the compacted revision minus one. judge looks
// again, after the store was read, whether all was there: its error is returned, and nothing
// is remembered.
func (t *Trails) Events(r engine.Reader, span shard.Span, from, to shard.Revision, o EventsOptions, judge func() error) (events []*mvccpb.Event, through shard.Revision, err error) {
	if span.Empty() || from >= to {
		return nil, to, nil
	}
	key := trailKey{string(span.Start), string(span.End)}
	trail := t.find(key, from)
	if trail != nil {
		events, through, err = trail.list(r, from, to, o)
	}
	walk := trail == nil || errors.Is(err, errCollected)
	if walk {
		if trail, err = findTrail(r, span, from, to, t.trailMax); err == nil {
			events, through, err = trail.list(r, from, to, o)
		}
	}
	if err := judge(); err != nil {
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list changes of %s in revisions (%s, %s]: %w", span, from, to, err)
	}
	if walk && through < trail.through {
		t.keep(key, trail)
	}
	return events, through, nil
}

// find returns a trail that leads on from there, or nil.
func (t *Trails) find(key trailKey, from shard.Revision) *Trail {
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.mu.trails.Get(key)
	if !ok || !known.covers(from) {
		return nil
	}
	return known
}

// keep remembers a trail, in the place of an older one of its span and of those that were not
// asked for for longest.
func (t *Trails) keep(key trailKey, found *Trail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.trails.Remove(key) // so that it is counted off
	t.mu.trails.Add(key, found)
	t.mu.bytes += found.bytes
	for t.mu.bytes > t.bytesMax && t.mu.trails.Len() > 1 {
		t.mu.trails.RemoveOldest()
	}
}

// Bytes is the approximate size of the trails.
func (t *Trails) Bytes() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.bytes
}
