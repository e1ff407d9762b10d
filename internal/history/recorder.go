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

	mu      sync.Mutex
	ops     []Op
	watches []Watch
	leases  []LeaseOp
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

// History returns a copy of what was recorded so far. Operations that have not
// returned are of Unknown outcome.
func (r *Recorder) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := History{Ops: slices.Clone(r.ops), Watches: slices.Clone(r.watches), Leases: slices.Clone(r.leases)}
	now := r.now()
	for i := range h.Ops {
		if h.Ops[i].Return == 0 {
			h.Ops[i].Return = now
		}
	}
	for i := range h.Leases {
		if h.Leases[i].Return == 0 {
			h.Leases[i].Return = now
		}
	}
	return h
}

// Watch notes that the client is about to ask for the watch; of w, what it asks for has
// to be set.
func (r *Recorder) Watch(w Watch) *Watching {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.ID, w.Opened = len(r.watches), r.now()
	r.watches = append(r.watches, w)
	return &Watching{rec: r, id: w.ID}
}

// InvokeLease notes that the client is about to send a request about a lease; of op,
// what it asks for has to be set.
func (r *Recorder) InvokeLease(op LeaseOp) *LeaseInvocation {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.ID, op.Call, op.Err = len(r.leases), r.now(), "still running when the history ended"
	r.leases = append(r.leases, op)
	return &LeaseInvocation{rec: r, id: op.ID}
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

// Watching is a watch that has begun.
type Watching struct {
	rec *Recorder
	id  int
}

// Response adds a message, which has just been received.
func (w *Watching) Response(resp WatchResponse) {
	w.change(func(rec *Watch, now time.Duration) {
		resp.At = now
		rec.Responses = append(rec.Responses, resp)
	})
}

// Ask notes that progress is about to be requested.
func (w *Watching) Ask() {
	w.change(func(rec *Watch, now time.Duration) { rec.Asked = append(rec.Asked, now) })
}

// End notes how the watch ended. Nothing may follow.
func (w *Watching) End(how string) {
	w.change(func(rec *Watch, _ time.Duration) { rec.End = how })
}

func (w *Watching) change(do func(rec *Watch, now time.Duration)) {
	w.rec.mu.Lock()
	defer w.rec.mu.Unlock()
	do(&w.rec.watches[w.id], w.rec.now())
}

// LeaseInvocation is a request about a lease that has begun. End it once.
type LeaseInvocation struct {
	rec *Recorder
	id  int
}

// OK ends it with an answer, and the time to live that this told.
func (i *LeaseInvocation) OK(ttl time.Duration) {
	i.end(func(op *LeaseOp) { op.Outcome, op.TTL, op.Err = OK, ttl, "" })
}

// Gone ends it with the answer that there is no such lease.
func (i *LeaseInvocation) Gone() {
	i.end(func(op *LeaseOp) { op.Outcome, op.Gone, op.Err = OK, true, "" })
}

// Failed ends it without an answer, or with a refusal when that is certain.
func (i *LeaseInvocation) Failed(out Outcome, err error) {
	i.end(func(op *LeaseOp) { op.Outcome, op.Err = out, err.Error() })
}

func (i *LeaseInvocation) end(how func(*LeaseOp)) {
	i.rec.mu.Lock()
	defer i.rec.mu.Unlock()
	op := &i.rec.leases[i.id]
	op.Return = i.rec.now()
	how(op)
}
