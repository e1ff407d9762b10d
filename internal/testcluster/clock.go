package testcluster

import (
	"sync/atomic"
	"time"
)

// Clock is a node's clock: the machine's, as wrong as the test wants it.
type Clock struct{ offset atomic.Int64 }

// Now implements clock.Clock.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// Set makes the clock that far ahead of the machine's, or behind if negative; 0 mends
// it. Between two readings it looks like a jump.
func (c *Clock) Set(offset time.Duration) { c.offset.Store(int64(offset)) }
