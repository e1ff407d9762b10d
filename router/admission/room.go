package admission

import (
	"fmt"
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/shard"
)

// Class is what requests have in common that share their bounds.
type Class int

const (
	// Exempt requests are not counted: they are few, or bounded where they come in, and the
	// cluster needs them to work.
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

const (
	// requestsMax bounds reads and writes together. With what gRPC needs for each it is
	// some hundred megabytes.
	requestsMax = 16 << 10
	// writesMax leaves a quarter of it to reads (Q2). It is about a second of a busy node.
	writesMax = 12 << 10
	// bytesMax bounds the keys and values of the writes.
	bytesMax = 128 << 20
)

// Room is what a node has for requests. Its methods may be called on nil, which has room for
// all, and by many at the same time.
type Room struct {
	metrics *Metrics
	full    error

	requests, writes, bytes atomic.Int64
}

// NewRoom returns an empty Room.
func NewRoom(m *Metrics) *Room {
	return &Room{metrics: m, full: fmt.Errorf("the node has no room for the request: %w", shard.ErrOverloaded)}
}

// Place is the room that a request has taken. The zero value is none.
type Place struct {
	room  *Room
	class Class
	bytes int64
}

// Take makes room for a request, until Leave is called. The error wraps shard.ErrOverloaded.
func (r *Room) Take(class Class, bytes int) (Place, error) {
	if r == nil || class == Exempt {
		return Place{}, nil
	}
	p := Place{room: r, class: class}
	fits := r.requests.Add(1) <= requestsMax
	if class == Write {
		p.bytes = int64(bytes)
		// A single write always fits: how large it may be is decided elsewhere.
		held := r.bytes.Add(p.bytes)
		fits = r.writes.Add(1) <= writesMax && (held <= bytesMax || held == p.bytes) && fits
	}
	if !fits {
		p.Leave()
		r.metrics.refused(class, "room")
		return Place{}, r.full
	}
	return p, nil
}

// Leave gives the room back.
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
