package replica

import (
	"sync/atomic"
	"time"
)

// ticks translates how long a request may take into what the Raft library is asked for. The
// library counts in ticks of the node, and gives a request up when its group's count has
// gone past the count at its beginning by that many:
//
//   - The tick that is under way counts as a whole one, so that a request of one tick can end
//     with the next microsecond.
//   - A group that has just been started counts from zero until its first tick, with which it
//     takes over the count of the node. All that is under way then would be given up, and
//     there is something under way: shards begin in the middle of a load.
//
// So the library gets more time than is meant, and whoever asks it measures his own.
type ticks struct {
	interval time.Duration
	opened   time.Time // when the node began to count
}

// ticksSlack is for the tick under way and one that comes late.
const ticksSlack = 2

// firstTicks is how many ticks may pass, on a busy machine, before a group has seen one.
const firstTicks = 10

// request returns what to ask the library for, for a request that may take d.
func (t ticks) request(d time.Duration, began *atomic.Pointer[time.Time]) time.Duration {
	d += ticksSlack * t.interval
	if at := began.Load(); at == nil || time.Since(*at) < firstTicks*t.interval {
		d += time.Since(t.opened)
	}
	return d
}
