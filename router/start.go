package router

import (
	"context"
	"errors"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/txn"
)

// Starter is a Sender that need not be waited for.
type Starter interface {
	// Start sends a request to a node and calls done once with the outcome, as Send would
	// return it; perhaps before it returns, and perhaps on a goroutine that must not be
	// blocked. Whoever gives up does not wait much longer than RequestTimeout.
	Start(node shard.NodeID, req *Request, done func(*Reply, error)) Call
}

// Call is a request under way. It is an alias, for those who do not know this package.
type Call = interface {
	// Abandon ends the request, if it has not ended, with what is known of its outcome then.
	Abandon(cause error)
}

// over is the Call of a request that has ended, or ends with its context.
type over struct{}

func (over) Abandon(error) {}

// What follows are Put, Range, DeleteRange and Txn without waiting. done is called once with
// the outcome and must not block. The first attempt costs neither a goroutine nor a timer; it
// is made where one shard surely has all the keys, and ends with its answer or when the Call
// is abandoned. If it fails for certain, or is none, the request is carried out as if it had
// been waited for, until ctx ends. So whoever abandons a Call has ended its ctx before.

// StartPut is Put without waiting.
func (r *Router) StartPut(ctx context.Context, req *pb.PutRequest, done func(*pb.PutResponse, error)) Call {
	return inTurn(ctx, r, req.Key, done, func(done func(*pb.PutResponse, error)) Call { return r.startPut(ctx, req, done) })
}

func (r *Router) startPut(ctx context.Context, req *pb.PutRequest, done func(*pb.PutResponse, error)) Call {
	again := func(why error) Call {
		return later(ctx, r, why, func() (*pb.PutResponse, error) { return r.put(ctx, req) }, done)
	}
	p, ok := r.cfg.Cache.find(req.Key)
	if !ok {
		return again(nil)
	}
	cmd := putCommand(req)
	return start(ctx, r, p, r.writer(p, 0), &cmd, putResponse, again, done)
}

// StartRange is Range without waiting.
func (r *Router) StartRange(ctx context.Context, req *pb.RangeRequest, done func(*pb.RangeResponse, error)) Call {
	again := func(why error) Call {
		return later(ctx, r, why, func() (*pb.RangeResponse, error) { return r.Range(ctx, req) }, done)
	}
	p, ok := r.cfg.Cache.find(req.Key)
	if !ok || req.Revision > 0 || !holds(p.Span, req.Key, req.RangeEnd) {
		return again(nil)
	}
	sub := &Request{Op: routerpb.Op_OP_RANGE, Message: req, Serializable: req.Serializable}
	return start(ctx, r, p, r.reader(p, 0), sub, rangeResponse, again, done)
}

// StartDeleteRange is DeleteRange without waiting.
func (r *Router) StartDeleteRange(ctx context.Context, req *pb.DeleteRangeRequest, done func(*pb.DeleteRangeResponse, error)) Call {
	again := func(why error) Call {
		return later(ctx, r, why, func() (*pb.DeleteRangeResponse, error) { return r.DeleteRange(ctx, req) }, done)
	}
	p, ok := r.cfg.Cache.find(req.Key)
	if !ok || !holds(p.Span, req.Key, req.RangeEnd) {
		return again(nil)
	}
	cmd, err := command(shardpb.Kind_DELETE_RANGE, req, false)
	if err != nil {
		done(nil, err)
		return over{}
	}
	return start(ctx, r, p, r.writer(p, 0), &cmd, deleteResponse, again, done)
}

// StartTxn is Txn without waiting.
func (r *Router) StartTxn(ctx context.Context, req *pb.TxnRequest, done func(*pb.TxnResponse, error)) Call {
	foot := txn.FootprintTxn(req)
	if len(foot.Writes) == 0 || txn.HighestReadRevision(req) > 0 {
		return later(ctx, r, nil, func() (*pb.TxnResponse, error) { return r.Txn(ctx, req) }, done)
	}
	cmd, err := command(shardpb.Kind_TXN, req, txn.Grows(req))
	if err != nil {
		done(nil, err)
		return over{}
	}
	return inTurn(ctx, r, first(foot), done, func(done func(*pb.TxnResponse, error)) Call {
		again := func(why error) Call {
			return later(ctx, r, why, func() (*pb.TxnResponse, error) { return r.txn(ctx, req, foot, cmd) }, done)
		}
		p, ok := r.cfg.Cache.find(first(foot))
		if !ok || !foot.Within(p.Span) {
			return again(nil)
		}
		once := cmd
		return start(ctx, r, p, r.writer(p, 0), &once, txnResponse, again, done)
	})
}

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

// start makes the first attempt of a request to the shard at p. response makes the answer
// of the shard's; again is what remains to be tried, and why.
func start[R any](ctx context.Context, r *Router, p Place, node shard.NodeID, req *Request, response func(*Reply) R, again func(why error) Call, done func(R, error)) Call {
	if node == 0 {
		return again(nil)
	}
	req.Shard, req.Epoch = p.ID, p.Epoch
	if req.Command != nil {
		req.Command.Epoch = p.Epoch
	}
	return r.cfg.Starter.Start(node, req, func(reply *Reply, err error) {
		reply, err = r.settle(p, node, req, reply, err)
		switch {
		case err == nil:
			done(response(reply), nil)
		case ctx.Err() == nil && r.mayRepeat(err):
			again(err)
		default:
			var none R
			done(none, r.final(ctx, err))
		}
	})
}

// refusedMax bounds the requests that wait until a node is asked again that had too much to
// do. Beyond it they fail.
const refusedMax = 4096

// later carries a request out on a goroutine of its own. why is how its first attempt failed.
func later[R any](ctx context.Context, r *Router, why error, request func() (R, error), done func(R, error)) Call {
	if errors.Is(why, shard.ErrOverloaded) {
		if r.refused.Add(1) > refusedMax {
			r.refused.Add(-1)
			var none R
			done(none, why)
			return over{}
		}
		once := request
		request = func() (R, error) {
			defer r.refused.Add(-1)
			(&backoff{}).wait(ctx, why)
			return once()
		}
	}
	if !r.spawn(func() { done(request()) }) {
		var none R
		done(none, shard.ErrStopped)
	}
	return over{}
}

// mayRepeat reports whether a first attempt that ended with err leaves something to try.
func (r *Router) mayRepeat(err error) bool {
	if errors.Is(err, ErrRequestTimeout) { // certain or not
		return false
	}
	return unapplied(err) || r.cfg.Knobs.RetryUnknown && errors.Is(err, shard.ErrUnknownOutcome)
}

// unapplied reports whether an attempt that ended with err changed nothing (T1), and there
// is more to try.
func unapplied(err error) bool {
	var unregistered *shard.UnregisteredLeaseError
	var notClosed *shard.NotClosedError
	return certain(err) || errors.As(err, &unregistered) || errors.As(err, &notClosed)
}
