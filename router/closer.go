package router

import (
	"context"
	"sync"

	"github.com/flotilla-kv/flotilla/shard"
)

// closer lets concurrent requests share the closing of a shard: one CLOSE per shard is in flight,
// and all requests that arrive meanwhile share the next.
type closer struct {
	close func(ctx context.Context, span shard.Span, floor shard.Revision) error

	// ctx ends with stop; runs are the goroutines of run.
	ctx    context.Context
	cancel context.CancelFunc
	runs   sync.WaitGroup

	mu struct {
		sync.Mutex
		shards map[closingKey]*closing
	}
}

// closingKey includes the epoch, because requests that share a CLOSE must mean the same span.
type closingKey struct {
	id    shard.ID
	epoch uint64
}

type closing struct {
	running, waiting *closeCall
}

type closeCall struct {
	floor shard.Revision
	done  chan struct{}
	err   error // set before done is closed
}

func newCloser(f func(ctx context.Context, span shard.Span, floor shard.Revision) error) *closer {
	c := &closer{close: f}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.shards = make(map[closingKey]*closing)
	return c
}

// stop ends the CLOSEs in flight and waits for them. Later callers get shard.ErrStopped.
func (c *closer) stop() {
	c.mu.Lock()
	c.cancel()
	c.mu.Unlock()
	c.runs.Wait()
}

// reach returns once everything that the shard at p owns, by its descriptor there, is closed to
// floor.
func (c *closer) reach(ctx context.Context, p Place, floor shard.Revision) error {
	key := closingKey{p.ID, p.Epoch}
	c.mu.Lock()
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		return shard.ErrStopped
	}
	state := c.mu.shards[key]
	if state == nil {
		state = &closing{}
		c.mu.shards[key] = state
	}
	var call *closeCall
	switch {
	case state.running == nil:
		call = &closeCall{floor: floor, done: make(chan struct{})}
		state.running = call
		c.runs.Go(func() { c.run(key, p.Span, state) })
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

// run performs the current call and those that queue up behind it. It has its own deadline: a
// caller that leaves does not fail the others.
func (c *closer) run(key closingKey, span shard.Span, state *closing) {
	for {
		c.mu.Lock()
		call := state.running
		c.mu.Unlock()
		ctx, cancel := bounded(c.ctx)
		call.err = c.close(ctx, span, call.floor)
		cancel()
		close(call.done)
		c.mu.Lock()
		state.running, state.waiting = state.waiting, nil
		if state.running == nil {
			delete(c.mu.shards, key)
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}
