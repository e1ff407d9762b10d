package router

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/txn"
)

// Starter is a Sender that does not block its caller.
type Starter interface {
	// Start sends a request to a node and reports its outcome to end once, as Send would return it;
	// perhaps before Start returns, and perhaps on a goroutine that must not be blocked. The
	// request ends not much later than RequestTimeout.
	Start(node shard.NodeID, req *Request, end Ender) Call
	// Told converts an error with which Start has ended into the one for callers.
	Told(node shard.NodeID, err error) error
}

// Ender receives the outcome of a request. It does not keep the reply.
type Ender interface{ End(*Reply, error) }

// EndFunc is an Ender.
type EndFunc func(*Reply, error)

// End implements Ender.
func (f EndFunc) End(reply *Reply, err error) { f(reply, err) }

// Call is a request in flight. It is an alias, for packages that do not import this one.
type Call = interface {
	// Abandon ends the request, if it has not ended, with what is known about its outcome by then.
	Abandon(cause error)
}

// over is the Call of a request that has ended, or that ends with its context.
type over struct{}

func (over) Abandon(error) {}

// What follows are asynchronous forms of Put, Range, DeleteRange and Txn. done is called once with
// the outcome and must not block. The first attempt takes neither a goroutine nor a timer; it is
// made if one shard certainly owns all the keys, and it ends with its answer or when the Call is
// abandoned. If that attempt fails for certain, or cannot be made, the request is carried out like
// a synchronous one, on a goroutine, until ctx ends. So a caller that abandons a Call must have
// ended its ctx before.

// StartPut is the asynchronous Put of a client.
func (r *Router) StartPut(ctx context.Context, req *pb.PutRequest, done func(*pb.PutResponse, error)) Call {
	return startPut(&attempt[*pb.PutRequest, *pb.PutResponse]{response: putResponse}, r, ctx, req, done)
}

// Put is the memory of a put, reusable once the put has ended. The last call of the put is done,
// which must not keep the response.
type Put struct {
	attempt[*pb.PutRequest, *pb.PutResponse]
	answer struct {
		pb.PutResponse
		header pb.ResponseHeader
	}
	answered func(*Reply) *pb.PutResponse // respond
}

// Forget drops the references to the last put's arguments.
func (p *Put) Forget() { p.attempt = attempt[*pb.PutRequest, *pb.PutResponse]{} }

// respond is putResponse in p.answer.
func (p *Put) respond(reply *Reply) *pb.PutResponse {
	if reply.Message != nil {
		return putResponse(reply)
	}
	p.answer.Header, p.answer.header.Revision = &p.answer.header, int64(reply.Rev)
	return &p.answer.PutResponse
}

// StartPutIn is StartPut in memory that no put is using.
func (r *Router) StartPutIn(p *Put, ctx context.Context, req *pb.PutRequest, done func(*pb.PutResponse, error)) Call {
	if p.answered == nil {
		p.answered = p.respond
	}
	p.attempt = attempt[*pb.PutRequest, *pb.PutResponse]{response: p.answered}
	return startPut(&p.attempt, r, ctx, req, done)
}

func startPut(a *attempt[*pb.PutRequest, *pb.PutResponse], r *Router, ctx context.Context, req *pb.PutRequest, done func(*pb.PutResponse, error)) Call {
	a.router, a.ctx, a.asked, a.whole, a.done = r, ctx, req, (*Router).putAdmitted, done
	p, ok := r.cfg.Cache.find(req.Key)
	if !ok {
		return a.again(nil)
	}
	a.request = Request{Op: routerpb.Op_OP_WRITE, Put: req, Grows: true}
	return a.start(p, r.writer(p, 0))
}

// StartEncodedPut is the asynchronous Put of a node, for a request that is also available in encoded form, which must not
// change any more.
func (r *Router) StartEncodedPut(ctx context.Context, req *pb.PutRequest, body []byte, done func(*pb.PutResponse, error)) Call {
	a := &attempt[*pb.PutRequest, *pb.PutResponse]{
		router: r, ctx: ctx, asked: req, whole: (*Router).putAdmitted, response: putResponse, done: done,
		writing: &writing{key: req.Key},
	}
	return a.writeInTurn(shardpb.Kind_PUT, body, true)
}

// StartRange is the asynchronous Range.
func (r *Router) StartRange(ctx context.Context, req *pb.RangeRequest, done func(*pb.RangeResponse, error)) Call {
	return r.StartRangeIn(new(Range), ctx, req, done)
}

// Range is the memory of a read, as Put is that of a put.
type Range struct {
	attempt[*pb.RangeRequest, *pb.RangeResponse]
}

// Forget drops the references to the last read's arguments.
func (r *Range) Forget() { r.attempt = attempt[*pb.RangeRequest, *pb.RangeResponse]{} }

// StartRangeIn is StartRange in memory that no read is using.
func (r *Router) StartRangeIn(memory *Range, ctx context.Context, req *pb.RangeRequest, done func(*pb.RangeResponse, error)) Call {
	a := &memory.attempt
	*a = attempt[*pb.RangeRequest, *pb.RangeResponse]{
		router: r, ctx: ctx, asked: req, whole: (*Router).Range, response: rangeResponse, done: done,
	}
	p, ok := r.cfg.Cache.find(req.Key)
	if !ok || req.Revision > 0 || !holds(p.Span, req.Key, req.RangeEnd) {
		return a.again(nil)
	}
	a.request = Request{Op: routerpb.Op_OP_RANGE, Message: req, Serializable: req.Serializable}
	return a.start(p, r.reader(p, 0))
}

// StartDeleteRange is the asynchronous DeleteRange.
func (r *Router) StartDeleteRange(ctx context.Context, req *pb.DeleteRangeRequest, done func(*pb.DeleteRangeResponse, error)) Call {
	a := &attempt[*pb.DeleteRangeRequest, *pb.DeleteRangeResponse]{
		router: r, ctx: ctx, asked: req, whole: (*Router).DeleteRange, response: deleteResponse, done: done,
		writing: &writing{},
	}
	p, ok := r.cfg.Cache.find(req.Key)
	if !ok || !holds(p.Span, req.Key, req.RangeEnd) {
		return a.again(nil)
	}
	body, err := encode(shardpb.Kind_DELETE_RANGE, req)
	if err != nil {
		a.fail(err)
		return over{}
	}
	return a.write(p, shardpb.Kind_DELETE_RANGE, body, false)
}

// StartTxn is the asynchronous Txn.
func (r *Router) StartTxn(ctx context.Context, req *pb.TxnRequest, done func(*pb.TxnResponse, error)) Call {
	body, err := encode(shardpb.Kind_TXN, req)
	if err != nil {
		done(nil, err)
		return over{}
	}
	return r.StartEncodedTxn(ctx, req, body, done)
}

// StartEncodedTxn is StartTxn of a request that is also available in encoded form, which must not
// change any more.
func (r *Router) StartEncodedTxn(ctx context.Context, req *pb.TxnRequest, body []byte, done func(*pb.TxnResponse, error)) Call {
	foot := txn.FootprintTxn(req)
	if len(foot.Writes) == 0 || txn.HighestReadRevision(req) > 0 {
		return later(ctx, r, nil, func() (*pb.TxnResponse, error) { return r.Txn(ctx, req) }, done)
	}
	a := &attempt[*pb.TxnRequest, *pb.TxnResponse]{
		router: r, ctx: ctx, asked: req, whole: (*Router).txnAdmitted, response: txnResponse, done: done,
		writing: &writing{key: first(foot), foot: foot},
	}
	return a.writeInTurn(shardpb.Kind_TXN, body, txn.Grows(req))
}

// attempt is the first attempt of a request. Everything that reads and a client's puts need is in
// one allocation, because allocations are most of what a request costs a client.
type attempt[Q, R any] struct {
	router   *Router
	ctx      context.Context
	asked    Q
	whole    func(*Router, context.Context, Q) (R, error) // carries out the request when its turn comes, with all attempts
	response func(*Reply) R
	done     func(R, error)
	*writing // nil where there is no command

	place   Place
	node    shard.NodeID
	request Request
}

// writing is what an attempt of a command needs in addition.
type writing struct {
	key     []byte        // one that tells its shard
	foot    txn.Footprint // of a transaction: the keys that must be in that shard
	turn    admission.Turn
	command shardpb.Command
}

// write sends a command to the shard at p.
func (a *attempt[Q, R]) write(p Place, kind shardpb.Kind, body []byte, grows bool) Call {
	a.prepare(kind, body, grows)
	return a.writeTo(p)
}

func (a *attempt[Q, R]) prepare(kind shardpb.Kind, body []byte, grows bool) {
	a.command.Kind, a.command.Body = kind, body
	a.request = Request{Op: routerpb.Op_OP_WRITE, Command: &a.command, Grows: grows}
}

func (a *attempt[Q, R]) writeTo(p Place) Call {
	if !a.foot.Within(p.Span) {
		return a.again(nil)
	}
	a.command.Epoch = p.Epoch
	return a.start(p, a.router.writer(p, 0))
}

// start sends the request to a node, for the shard at p.
func (a *attempt[Q, R]) start(p Place, node shard.NodeID) Call {
	if node == 0 {
		return a.again(nil)
	}
	a.place, a.node = p, node
	a.request.Shard, a.request.Epoch = p.ID, p.Epoch
	return a.router.cfg.Starter.Start(node, &a.request, a)
}

// End implements Ender.
func (a *attempt[Q, R]) End(reply *Reply, err error) {
	if err != nil {
		err = a.router.cfg.Starter.Told(a.node, err)
	}
	reply, err = a.router.settle(a.place, a.node, &a.request, reply, err)
	switch {
	case err == nil:
		a.conclude(a.response(reply), nil)
	case a.ctx.Err() == nil && a.router.mayRepeat(err):
		a.again(err)
	default:
		a.fail(a.router.final(a.ctx, err))
	}
}

func (a *attempt[Q, R]) fail(err error) {
	var none R
	a.conclude(none, err)
}

func (a *attempt[Q, R]) conclude(resp R, err error) {
	if a.writing != nil {
		a.turn.Leave(err)
	}
	a.done(resp, err)
}

// again carries the request out like a synchronous one. why is the failure of the first attempt,
// nil if there was none.
func (a *attempt[Q, R]) again(why error) Call {
	return later(a.ctx, a.router, why, func() (R, error) { return a.whole(a.router, a.ctx, a.asked) }, a.conclude)
}

// refusedMax bounds the requests that wait before an overloaded node is asked again. Beyond it they
// fail.
const refusedMax = 4096

// later carries a request out on a goroutine of its own. why is the failure of its first attempt.
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

// mayRepeat reports whether a request may be retried after its first attempt ended with err.
func (r *Router) mayRepeat(err error) bool {
	if errors.Is(err, ErrRequestTimeout) { // certain or not
		return false
	}
	if errors.Is(err, shard.ErrLargeAnswer) && !errors.Is(err, shard.ErrUnknownOutcome) {
		return true // of a read, which can be made piece by piece
	}
	return unapplied(err) || r.cfg.Knobs.RetryUnknown && errors.Is(err, shard.ErrUnknownOutcome)
}

// unapplied reports whether an attempt that ended with err changed nothing (T1), and can be
// retried.
func unapplied(err error) bool {
	var unregistered *shard.UnregisteredLeaseError
	var notClosed *shard.NotClosedError
	return certain(err) || errors.As(err, &unregistered) || errors.As(err, &notClosed)
}
