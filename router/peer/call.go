package peer

import (
	"fmt"
	"iter"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// call is a request that waits for its reply.
type call struct {
	asked *router.Request
	// Who is told how it ended: answers, who decodes the reply where he waits, or else end.
	answers chan<- answer
	end     router.Ender

	out   routerpb.Request // asked, as it is sent
	bytes int              // of out

	link *link // nil until it is enqueued
	born int   // link.mu.age then
	sent bool  // guarded by link.mu: handed to gRPC, or about to be
}

// answer is what a call ends with.
type answer struct {
	reply *routerpb.Reply
	err   error
}

// size implements sized.
func (c *call) size() int { return c.bytes }

// finish tells the outcome. It is called once, without link.mu.
func (c *call) finish(reply *routerpb.Reply, err error) {
	switch {
	case c.answers != nil:
		c.answers <- answer{reply, err}
	case err != nil:
		c.end.End(nil, err)
	default:
		c.end.End(decodeReply(c.asked, reply))
	}
}

// Abandon implements router.Call.
func (c *call) Abandon(cause error) {
	if c.link == nil || !c.link.forget(c) {
		return // it has ended
	}
	c.finish(nil, c.outcome(fmt.Errorf("no reply from the node: %w", cause)))
}

// outcome is that of a call which ended without a reply (N1). It has been forgotten.
func (c *call) outcome(why error) error {
	if c.sent && c.asked.Op == routerpb.Op_OP_WRITE {
		return fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, why)
	}
	return fmt.Errorf("%w: %w", shard.ErrUnavailable, why)
}

// placeBits is how many bits of an ID say where the call is: a million at a time.
const placeBits = 20

// calls are those under way. The ID that a call is given says its place in a table, and how
// often that was given away before, so that a late reply to one that was abandoned is no reply to
// another. A map of IDs cost a client as much as encoding what it sends.
type calls struct {
	places []place
	free   []uint32 // which of them are empty
}

type place struct {
	call *call
	turn uint64
}

// add gives the call an ID; false when there are too many.
func (t *calls) add(c *call) bool {
	if len(t.free) == 0 {
		if len(t.places) == 1<<placeBits {
			return false
		}
		t.free = append(t.free, uint32(len(t.places)))
		t.places = append(t.places, place{})
	}
	i := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	p := &t.places[i]
	p.turn++
	p.call = c
	c.out.Id = p.turn<<placeBits | uint64(i)
	return true
}

// take removes and returns the call with the ID, nil if there is none.
func (t *calls) take(id uint64) *call {
	i := id & (1<<placeBits - 1)
	if i >= uint64(len(t.places)) {
		return nil
	}
	p := &t.places[i]
	c := p.call
	if c == nil || c.out.Id != id {
		return nil
	}
	p.call = nil
	t.free = append(t.free, uint32(i))
	return c
}

// all is every call, none of which may be taken meanwhile.
func (t *calls) all() iter.Seq[*call] {
	return func(yield func(*call) bool) {
		for _, p := range t.places {
			if p.call != nil && !yield(p.call) {
				return
			}
		}
	}
}
