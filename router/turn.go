package router

import (
	"context"
	"sync"

	"github.com/flotilla-kv/flotilla/router/admission"
)

// inTurn begins a write when the shard that owns key may be sent it (T8).
func inTurn[R any](ctx context.Context, r *Router, key []byte, done func(R, error), begin func(done func(R, error)) Call) Call {
	p, ok := r.cfg.Cache.find(key)
	if r.cfg.Lanes == nil || !ok {
		return begin(done)
	}
	during := func(turn admission.Turn) Call {
		return begin(func(resp R, err error) {
			turn.Leave(err)
			done(resp, err)
		})
	}
	if turn, free := r.cfg.Lanes.Try(p.ID); free {
		return during(turn)
	}
	a := &awaited{}
	deadline, _ := ctx.Deadline()
	a.waits(r.cfg.Lanes.Begin(p.ID, deadline, func(turn admission.Turn, err error) {
		if err != nil {
			var none R
			done(none, err)
			return
		}
		a.begins(during(turn))
	}))
	return a
}

// awaited is the Call of a write that waits for its turn, and then of the write.
type awaited struct {
	mu    sync.Mutex
	call  Call
	began bool
	cause error // why it was abandoned
}

func (a *awaited) waits(w *admission.Waiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.began {
		a.call = w
	}
}

func (a *awaited) begins(call Call) {
	a.mu.Lock()
	a.call, a.began = call, true
	cause := a.cause
	a.mu.Unlock()
	if cause != nil {
		call.Abandon(cause)
	}
}

// Abandon implements Call.
func (a *awaited) Abandon(cause error) {
	a.mu.Lock()
	a.cause = cause
	call := a.call
	a.mu.Unlock()
	call.Abandon(cause)
}
