package admission

import (
	"cmp"
	"fmt"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/shard"
)

// Class groups requests that share their bounds.
type Class int

const (
	// Exempt requests are not counted: they are few, or bounded elsewhere, and the cluster needs
	// them to work.
	Exempt Class = iota
	// Read requests change nothing.
	Read
	// Write requests go through a shard's log.
	Write
)

func (c Class) String() string {
	switch c {
	case Read:
		return "read"
	case Write:
		return "write"
	default:
		return "exempt"
	}
}

// Bounds are those of a Room. A zero field has its default.
type Bounds struct {
	// Requests bounds reads and writes together. With gRPC's memory for each, the default of 16 Ki
	// takes some hundred megabytes. Writes may use three quarters of it, which leaves the rest to
	// reads (Q2): by default about a second of a busy node.
	Requests int64
	// Bytes bounds the keys and values of the writes. Default 128 MiB.
	Bytes int64
}

func (b Bounds) withDefaults() Bounds {
	return Bounds{Requests: cmp.Or(b.Requests, 16<<10), Bytes: cmp.Or(b.Bytes, 128<<20)}
}

// writes is how many of the requests may be writes.
func writes(requests int64) int64 { return requests * 3 / 4 }

// Room bounds the requests that a node has accepted. Its methods may be called on nil, which
// accepts everything, and concurrently.
type Room struct {
	metrics *Metrics
	bounds  Bounds
	full    error

	requests, writes, bytes atomic.Int64
	// short is set while the node has no memory left, whatever the bounds are.
	short atomic.Bool
}

// NewRoom returns an empty Room.
func NewRoom(m *Metrics, b Bounds) *Room {
	return &Room{metrics: m, bounds: b.withDefaults(), full: fmt.Errorf("the node has no room for the request: %w", shard.ErrOverloaded)}
}

// Bounds are the Room's bounds.
func (r *Room) Bounds() Bounds { return r.bounds }

// Bytes is the size of the keys and values of the accepted writes.
func (r *Room) Bytes() int64 { return r.bytes.Load() }

// Shorten makes the Room refuse everything while the node is short of memory (Q1).
func (r *Room) Shorten(short bool) { r.short.Store(short) }

// Place is the room taken by a request. The zero value is none.
type Place struct {
	room  *Room
	class Class
	bytes int64
}

// Take reserves room for a request, until Leave is called. The error wraps shard.ErrOverloaded.
func (r *Room) Take(class Class, bytes int) (Place, error) {
	if r == nil || class == Exempt {
		return Place{}, nil
	}
	if r.short.Load() {
		r.metrics.refused(class, "memory")
		return Place{}, r.full
	}
	p := Place{room: r, class: class}
	fits := r.requests.Add(1) <= r.bounds.Requests
	if class == Write {
		p.bytes = int64(bytes)
		// A single write always fits: its size is limited elsewhere.
		held := r.bytes.Add(p.bytes)
		fits = r.writes.Add(1) <= writes(r.bounds.Requests) && (held <= r.bounds.Bytes || held == p.bytes) && fits
	}
	if !fits {
		p.Leave()
		r.metrics.refused(class, "room")
		return Place{}, r.full
	}
	return p, nil
}

// Leave returns the room.
func (p Place) Leave() {
	if p.room == nil {
		return
	}
	p.room.requests.Add(-1)
	if p.class == Write {
		p.room.writes.Add(-1)
		p.room.bytes.Add(-p.bytes)
	}
}
