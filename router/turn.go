package router

import (
	"sync"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// writeInTurn sends a command to the shard that owns key once admission allows it (T8).
func (a *attempt[Q, R]) writeInTurn(kind shardpb.Kind, body []byte, grows bool) Call {
	a.prepare(kind, body, grows)
	p, ok := a.router.cfg.Cache.find(a.key)
	if !ok {
		return a.again(nil) // a node that knows no shards has sent them nothing
	}
	lanes := a.router.cfg.Lanes
	if lanes == nil {
		return a.writeTo(p)
	}
	var free bool
	if a.turn, free = lanes.Try(p.ID); free {
		return a.writeTo(p)
	}
	w := &awaited{}
	deadline, _ := a.ctx.Deadline()
	w.waits(lanes.Begin(p.ID, deadline, func(turn admission.Turn, err error) {
		if err != nil {
			a.fail(err)
			return
		}
		a.turn = turn
		w.begins(a.afterTurn())
	}))
	return w
}

// afterTurn sends the command to the shard that owns key by now.
func (a *attempt[Q, R]) afterTurn() Call {
	p, ok := a.router.cfg.Cache.find(a.key)
	if !ok {
		return a.again(nil)
	}
	return a.writeTo(p)
}

// awaited is the Call of a write that waits for admission, and then of the write itself.
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
