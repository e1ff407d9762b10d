package router

import (
	"sync/atomic"
	"time"
)

// patienceGrain is by how much later than RequestTimeout a shared one may end.
const patienceGrain = 100 * time.Millisecond

// patience ends requests after RequestTimeout without a timer and a context for each:
// those that begin within the same patienceGrain share one timer. What a context of its
// own costs a request, 2 % of a server's CPU per put, is more than all that the router does.
type patience struct{ current atomic.Pointer[lapse] }

// lapse is the end of the requests that begin before its grain is over.
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
