package router

import (
	"sync/atomic"
	"time"
)

// patienceGrain is how much later than RequestTimeout a shared timeout may end.
const patienceGrain = 100 * time.Millisecond

// patience ends requests after RequestTimeout without a timer and a context for each: those that
// begin within the same patienceGrain share a timer. A separate context costs 2 % of a server's CPU
// per put, more than everything else the router does.
type patience struct{ current atomic.Pointer[lapse] }

// lapse is the common end of the requests that begin within its grain.
type lapse struct {
	began time.Time
	over  chan struct{}
}

// begin returns a channel that is closed when RequestTimeout has passed.
func (p *patience) begin() <-chan struct{} {
	now := time.Now()
	held := p.current.Load()
	if held != nil && now.Sub(held.began) < patienceGrain {
		return held.over
	}
	next := &lapse{began: now, over: make(chan struct{})}
	if !p.current.CompareAndSwap(held, next) {
		return p.begin() // somebody else was as fast
	}
	time.AfterFunc(RequestTimeout+patienceGrain, func() { close(next.over) })
	return next.over
}
