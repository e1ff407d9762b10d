package history

import (
	"slices"
	"sync"
	"time"
)

// Recorder collects operations of many clients at once.
type Recorder struct {
	// now is one monotonic clock for all clients: real-time order is what H1 and H3
	// judge by.
	now func() time.Duration

	mu  sync.Mutex
	ops []Op
}

// NewRecorder returns an empty recorder that takes times from now.
func NewRecorder(now func() time.Duration) *Recorder { return &Recorder{now: now} }

// Invoke notes that the client is about to send the request. Call it before the
// request can reach the store.
func (r *Recorder) Invoke(client int, req Request) *Invocation {
	return r.invoke(Op{Client: client, Request: req})
}

// InvokeFinal is Invoke for the read-back at the end.
func (r *Recorder) InvokeFinal(client int, req Request) *Invocation {
	return r.invoke(Op{Client: client, Request: req, Final: true})
}

func (r *Recorder) invoke(op Op) *Invocation {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.ID, op.Call, op.Err = len(r.ops), r.now(), "still running when the history ended"
	r.ops = append(r.ops, op)
	return &Invocation{rec: r, id: op.ID}
}

// Ops returns a copy of what was recorded so far. Operations that have not
// returned are of Unknown outcome.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.ops)
	now := r.now()
	for i := range out {
		if out[i].Return == 0 {
			out[i].Return = now
		}
	}
	return out
}

// Invocation is an operation that has begun. End it with one of its methods, once.
type Invocation struct {
	rec *Recorder
	id  int
}

// OK ends the operation with an answer.
func (i *Invocation) OK(resp Response) { i.end(OK, resp, "") }

// Refused ends the operation with the certainty that it changed nothing.
func (i *Invocation) Refused(err error) { i.end(Refused, Response{}, err.Error()) }

// Unknown ends the operation without knowing what came of it.
func (i *Invocation) Unknown(err error) { i.end(Unknown, Response{}, err.Error()) }

func (i *Invocation) end(out Outcome, resp Response, msg string) {
	i.rec.mu.Lock()
	defer i.rec.mu.Unlock()
	op := &i.rec.ops[i.id]
	op.Outcome, op.Response, op.Err, op.Return = out, resp, msg, i.rec.now()
}
