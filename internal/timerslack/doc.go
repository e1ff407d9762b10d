// Package timerslack makes Go's monitor thread wake up less often.
//
// The runtime has a thread of its own that takes processors away from goroutines whose system calls block, and stops
// those that run for too long. While it finds something to do it looks every 20 microseconds. A node whose disk syncs hundreds of
// times a second, and which is idle in between, never lets it slow down: with the kernel's default slack of
// 50 microseconds it woke up about 14,000 times a second, and took an eighth of what a put cost three nodes on two cores.
//
// There is no setting for that, but the thread sleeps by the kernel's timers, and those are as late as the thread's
// timer slack allows. A thread inherits its slack from the one that created it, and the monitor starts
// before any code of ours. So a process that should have more slack sets it and executes itself again.
package timerslack

import "time"

// Wanted is the slack of a node's threads. A blocked system call is noticed later by as much, and timers fire later by as
// much, which must stay small beside an fsync and a request. With four times as much a lone client waited longer.
const Wanted = time.Millisecond

// kernelDefault is the slack of a thread if nobody has chosen another.
const kernelDefault = 50 * time.Microsecond
