package peer

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// call is a request in flight.
type call struct {
	asked *router.Request
	// Receivers of the outcome: answers, if the caller waits and decodes the message itself, or
	// else end.
	answers chan<- answer
	end     router.Ender
	reply   router.Reply // passed to end

	link *link // nil until it is enqueued

	// Guarded by link.mu.
	id    uint64
	born  int       // link.mu.age then
	waits *outgoing // the frame in which its request waits, nil when it does not wait
	at    int       // the request's place in that frame
	bytes int       // the request's size in that frame
	sent  bool      // handed to gRPC, or about to be
}

// answer is the outcome of a call.
type answer struct {
	reply router.Reply // without a message
	body  []byte       // the message, encoded
	err   error
}

// fail reports that there is no answer. Either fail or succeed is called, once, and without holding link.mu.
func (c *call) fail(err error) {
	if c.answers != nil {
		c.answers <- answer{err: err}
		return
	}
	c.end.End(nil, err)
}

// succeed reports the answer. It keeps none of the answer's memory.
func (c *call) succeed(a *answered) {
	if err := a.err(); err != nil {
		c.fail(c.link.judge(err))
		return
	}
	if c.answers != nil {
		c.answers <- answer{reply: a.reply, body: bytes.Clone(a.body)}
		return
	}
	c.reply = a.reply
	var err error
	if c.reply.Message, err = decodeBody(c.asked, a.body); err != nil {
		c.fail(err)
		return
	}
	c.end.End(&c.reply, nil)
}

// Abandon implements router.Call.
func (c *call) Abandon(cause error) {
	if c.link == nil || !c.link.forget(c) {
		return // the call has ended already
	}
	c.fail(c.outcome(fmt.Errorf("no reply from the node: %w", cause)))
}

// outcome classifies a call that ended without a reply (N1). The call has been removed from the table before.
func (c *call) outcome(why error) error {
	if c.sent && c.asked.Op == routerpb.Op_OP_WRITE {
		return fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, why)
	}
	return fmt.Errorf("%w: %w", shard.ErrUnavailable, why)
}

// movable reports whether the call's request may be sent to another node, although this node may still
// carry it out. It may if it changes nothing, was not sent, or can be repeated after any failure. The
// caller holds link.mu.
func (c *call) movable() bool {
	return c.asked.Op != routerpb.Op_OP_WRITE || !c.sent || c.asked.Repeatable()
}

// placeBits is the number of bits of an ID that hold the call's place in the table. It allows a million
// calls in flight.
const placeBits = 20

// calls are the calls in flight. A call's ID consists of its place in a table and that place's
// generation, so that a late reply to an abandoned call is not taken for the reply to another call.
// This is a table because a map of IDs cost a client as much CPU as encoding what it sends.
type calls struct {
	places []place
	free   []uint32 // the empty places
}

type place struct {
	call *call
	turn uint64
}

// none reports whether there are no calls.
func (t *calls) none() bool { return len(t.free) == len(t.places) }

// add gives the call an ID. It returns false when there are too many calls.
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
	c.id = p.turn<<placeBits | uint64(i)
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
	if c == nil || c.id != id {
		return nil
	}
	p.call = nil
	t.free = append(t.free, uint32(i))
	return c
}

// all iterates over every call. No call may be taken during the iteration.
func (t *calls) all() iter.Seq[*call] {
	return func(yield func(*call) bool) {
		for _, p := range t.places {
			if p.call != nil && !yield(p.call) {
				return
			}
		}
	}
}
