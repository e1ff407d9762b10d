package replica

import (
	"runtime"
	"sync"
	"time"
)

// convoy has proposals of several shards that start at the same tick enter Raft one directly after the other. One
// worker steps all groups, and it runs as soon as the goroutine that woke it waits. So it took the first proposal
// alone; the others had to wait for that one's fsync, and paid for a step, an fsync and messages of their own.
//
// Nobody waits for a shard: whoever comes first only lets those run who can, and then proposes what is there.
type convoy struct {
	mu      sync.Mutex
	waiting []*proposal
	// ticks are those that somebody waits for, by their time in nanoseconds.
	ticks map[int64]chan struct{}
}

// proposal is a call of dragonboat that waits for others.
type proposal struct {
	propose func()
	done    chan struct{} // closed after propose was called by somebody else
}

// enter returns after propose was called, by this goroutine or another one.
func (c *convoy) enter(propose func()) {
	mine := &proposal{propose, make(chan struct{})}
	c.mu.Lock()
	first := len(c.waiting) == 0
	c.waiting = append(c.waiting, mine)
	c.mu.Unlock()
	if !first {
		<-mine.done
		return
	}
	runtime.Gosched() // others who were woken by the same tick come first
	c.mu.Lock()
	all := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, p := range all {
		p.propose()
	}
	for _, p := range all[1:] {
		close(p.done)
	}
}

// tick returns a channel that is closed at a time. Whoever waits for the same time gets the same channel: one timer
// wakes them, one after the other on one processor, where timers of their own would wake them on different ones.
func (c *convoy) tick(at int64, wait time.Duration) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	reached := c.ticks[at]
	if reached == nil {
		if c.ticks == nil {
			c.ticks = make(map[int64]chan struct{})
		}
		reached = make(chan struct{})
		c.ticks[at] = reached
		time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.ticks, at)
			close(reached)
		})
	}
	return reached
}
