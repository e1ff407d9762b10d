package router

import (
	"context"
	"sync"

	"github.com/flotilla-kv/flotilla/shard"
)

// closer lets concurrent requests share the closing of a shard: one Close is under
// way per shard, and everyone who came meanwhile shares the next.
type closer struct {
	close func(ctx context.Context, key []byte, floor shard.Revision) error

	mu struct {
		sync.Mutex
		shards map[shard.ID]*closing
	}
}

type closing struct {
	running, waiting *closeCall
}

type closeCall struct {
	floor shard.Revision
	done  chan struct{}
	err   error // set before done is closed
}

func newCloser(f func(ctx context.Context, key []byte, floor shard.Revision) error) *closer {
	c := &closer{close: f}
	c.mu.shards = make(map[shard.ID]*closing)
	return c
}

// reach returns once the shard at p is closed to floor.
func (c *closer) reach(ctx context.Context, p Place, floor shard.Revision) error {
	c.mu.Lock()
	state := c.mu.shards[p.ID]
	if state == nil {
		state = &closing{}
		c.mu.shards[p.ID] = state
	}
	var call *closeCall
	switch {
	case state.running == nil:
		call = &closeCall{floor: floor, done: make(chan struct{})}
		state.running = call
		go c.run(p, state)
	case state.running.floor >= floor:
		call = state.running
	case state.waiting == nil:
		call = &closeCall{floor: floor, done: make(chan struct{})}
		state.waiting = call
	default:
		call = state.waiting
		call.floor = max(call.floor, floor)
	}
	c.mu.Unlock()
	select {
	case <-call.done:
		return call.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run performs the running call and those that come to wait behind it. It has its
// own deadline: a caller that leaves does not fail the others.
func (c *closer) run(p Place, state *closing) {
	for {
		c.mu.Lock()
		call := state.running
		c.mu.Unlock()
		ctx, cancel := bounded(context.Background())
		call.err = c.close(ctx, p.Span.Start, call.floor)
		cancel()
		close(call.done)
		c.mu.Lock()
		state.running, state.waiting = state.waiting, nil
		if state.running == nil {
			delete(c.mu.shards, p.ID)
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}
