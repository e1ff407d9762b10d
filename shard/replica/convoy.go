package replica

import (
	"runtime"
	"sync"
)

// convoy has proposals of several shards that start at the same tick enter Raft one directly after the other. One
// worker steps all groups, and it runs as soon as the goroutine that woke it waits. So it took the first proposal
// alone; the others had to wait for that one's fsync, and paid for a step, an fsync and messages of their own.
//
// Nobody waits for a shard: whoever comes first only lets those run who can, and then proposes what is there.
type convoy struct {
	mu      sync.Mutex
	waiting []*proposal
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
