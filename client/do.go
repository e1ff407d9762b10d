package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// Put writes a key.
func (c *Client) Put(ctx context.Context, key string, value []byte, options ...Option) (Result, error) {
	w := c.waiters.Get().(*waiter)
	if len(options) > 0 {
		w.op = Put(key, value, options...)
	} else {
		w.op = w.memory.plainPut(key, value)
	}
	return w.do(ctx)
}

// Get reads a key or a span.
func (c *Client) Get(ctx context.Context, key string, options ...Option) (Result, error) {
	return c.Do(ctx, Get(key, options...))
}

// Delete deletes a key or a span. A span over several shards is deleted shard by shard, each
// atomically.
func (c *Client) Delete(ctx context.Context, key string, options ...Option) (Result, error) {
	return c.Do(ctx, Delete(key, options...))
}

// Txn carries out a transaction.
func (c *Client) Txn(ctx context.Context, compares []Compare, then, orElse []Op) (Result, error) {
	return c.Do(ctx, Txn(compares, then, orElse))
}

// Do carries out an operation.
func (c *Client) Do(ctx context.Context, op Op) (Result, error) {
	w := c.waiters.Get().(*waiter)
	w.op = op
	return w.do(ctx)
}

// waiter is what a caller of Do waits on. Once its operation has ended nothing else refers to it,
// so it can be reused.
type waiter struct {
	operation
	result Result
	err    error
	ended  chan struct{}
}

func (c *Client) newWaiter() any {
	w := &waiter{operation: operation{client: c, memory: &memory{}}, ended: make(chan struct{}, 1)}
	w.done = w.end
	return w
}

// do carries out w.op and releases w.
func (w *waiter) do(ctx context.Context) (Result, error) {
	call := w.start(ctx)
	if cancelled := ctx.Done(); cancelled == nil {
		<-w.ended
	} else {
		select {
		case <-w.ended:
		case <-cancelled:
			call.Abandon(context.Cause(ctx))
			<-w.ended
		}
	}
	result, err := w.result, w.err
	w.forget()
	w.client.waiters.Put(w)
	return result, err
}

func (w *waiter) end(r Result, err error) {
	w.result, w.err = r, err
	w.ended <- struct{}{}
}

// Go starts an operation and calls done once with its outcome. done must not block or call Close,
// because other operations' outcomes wait behind it. It may start others.
func (c *Client) Go(ctx context.Context, op Op, done func(Result, error)) {
	o := &operation{client: c, op: op, done: done}
	if ctx.Done() == nil {
		o.start(ctx)
		return
	}
	a := &abandonable{done: done}
	o.done = a.finish
	a.call = o.start(ctx)
	a.watch(ctx)
}

// abandonable is an operation that ends early with its context.
type abandonable struct {
	done func(Result, error)
	call router.Call

	mu    sync.Mutex
	ended bool
	stop  func() bool
}

func (a *abandonable) finish(r Result, err error) {
	a.mu.Lock()
	a.ended = true
	stop := a.stop
	a.mu.Unlock()
	if stop != nil {
		stop()
	}
	a.done(r, err)
}

func (a *abandonable) watch(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended {
		a.stop = context.AfterFunc(ctx, func() { a.call.Abandon(context.Cause(ctx)) })
	}
}

// Outcome is the outcome of one operation of a batch.
type Outcome struct {
	Result Result
	Err    error
}

// batchUnderWay bounds the operations of a batch that are in flight at a time.
const batchUnderWay = 8192

// Batch carries out operations concurrently, in no particular order, and returns the outcome of
// each (X3). They are not atomic together, and go to all nodes at once.
func (c *Client) Batch(ctx context.Context, ops ...Op) []Outcome {
	out := make([]Outcome, len(ops))
	for from := 0; from < len(ops); from += batchUnderWay {
		to := min(from+batchUnderWay, len(ops))
		c.batch(ctx, ops[from:to], out[from:to])
	}
	return out
}

func (c *Client) batch(ctx context.Context, ops []Op, out []Outcome) {
	var left atomic.Int64
	left.Store(int64(len(ops)))
	all := make(chan struct{})
	calls := make([]router.Call, len(ops))
	for i := range ops {
		o := &operation{client: c, op: ops[i], done: func(r Result, err error) {
			out[i] = Outcome{r, err}
			if left.Add(-1) == 0 {
				close(all)
			}
		}}
		calls[i] = o.start(ctx)
	}
	select {
	case <-all:
		return
	case <-ctx.Done():
	}
	for _, call := range calls {
		call.Abandon(context.Cause(ctx))
	}
	<-all
}

// operation is an operation in flight.
type operation struct {
	client *Client
	op     Op
	done   func(Result, error) // called once
	// put and got receive the answers of nodes. They are method values, created once for reused
	// operations.
	put func(*pb.PutResponse, error)
	got func(*pb.RangeResponse, error)
	// memory is reused with the operation; nil where nothing is reused.
	memory *memory
}

// memory holds what successive operations of a waiter need. A client's allocations for a put, and
// their collection, were a fifth of its CPU.
type memory struct {
	put router.Put
	get router.Range

	request pb.PutRequest
	key     [shortKey]byte
}

// forget drops references to the operation's arguments and results.
func (w *waiter) forget() {
	switch w.op.kind {
	case put:
		w.memory.put.Forget()
		w.memory.request.Key, w.memory.request.Value = nil, nil
	case get:
		w.memory.get.Forget()
	}
	w.op, w.result, w.err = Op{}, Result{}, nil
}

// plainPut is Put without options, because options may keep the Op.
func (m *memory) plainPut(key string, value []byte) Op {
	m.request.Key, m.request.Value = append(m.key[:0], key...), value
	return Op{kind: put, put: &m.request}
}

// start begins the operation.
func (o *operation) start(ctx context.Context) router.Call {
	c := o.client
	if c.observes() {
		seen := *o
		seen.put, seen.got = nil, nil
		seen.done = c.observed(ctx, &o.op, o.done)
		o = &seen
	}
	if err := o.op.check(); err != nil {
		o.done(Result{}, err)
		return ended{}
	}
	if ctx.Err() != nil {
		o.done(Result{}, context.Cause(ctx)) // nothing was sent
		return ended{}
	}
	switch o.op.kind {
	case put:
		if o.put == nil {
			o.put = func(r *pb.PutResponse, err error) { conclude(o, putResult, r, err) }
		}
		if o.memory != nil {
			return c.router.StartPutIn(&o.memory.put, ctx, o.op.put, o.put)
		}
		return c.router.StartPut(ctx, o.op.put, o.put)
	case get:
		if o.got == nil {
			o.got = func(r *pb.RangeResponse, err error) { conclude(o, getResult, r, err) }
		}
		return o.startGet(ctx)
	case del:
		return c.router.StartDeleteRange(ctx, o.op.del, func(r *pb.DeleteRangeResponse, err error) { conclude(o, deleteResult, r, err) })
	default:
		return c.router.StartTxn(ctx, o.op.txn, func(r *pb.TxnResponse, err error) { conclude(o, txnResult, r, err) })
	}
}

func conclude[R any](o *operation, result func(R) Result, response R, err error) {
	if err != nil {
		o.done(Result{}, o.client.explain(&o.op, err))
		return
	}
	o.done(result(response), nil)
}

// startGet begins a read. A read at a time reads at that time's revision.
func (o *operation) startGet(ctx context.Context) router.Call {
	c, op, done := o.client, &o.op, o.got
	if op.at.IsZero() && o.memory != nil {
		return c.router.StartRangeIn(&o.memory.get, ctx, op.get, done)
	}
	if op.at.IsZero() {
		return c.router.StartRange(ctx, op.get, done)
	}
	return c.router.StartRange(ctx, op.get, func(r *pb.RangeResponse, err error) {
		if !op.notYet(err) {
			done(r, err)
			return
		}
		if !c.spawn(func() {
			latest, err := c.latest(ctx, op)
			if err != nil {
				done(nil, err)
				return
			}
			done(c.router.Range(ctx, latest))
		}) {
			done(nil, closedError{})
		}
	})
}

// notYet reports whether a read at a time failed because no revision has reached that time,
// although it is not in the future.
func (o *Op) notYet(err error) bool {
	return errors.Is(err, shard.ErrFutureRevision) && !o.at.IsZero() && !o.at.After(time.Now())
}

// latest is a read at a time that no revision has reached: it reads at the latest revision. If
// there has been a later one meanwhile, reading at the time itself has become possible.
func (c *Client) latest(ctx context.Context, op *Op) (*pb.RangeRequest, error) {
	rev, err := c.router.Latest(ctx, []shard.Span{op.span()})
	if err != nil {
		return nil, err
	}
	r := op.get
	return &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.RangeEnd, Limit: r.Limit, SortOrder: r.SortOrder, SortTarget: r.SortTarget,
		Serializable: r.Serializable, KeysOnly: r.KeysOnly, CountOnly: r.CountOnly,
		Revision: min(r.Revision, int64(rev)),
	}, nil
}
