package exec

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

// Bounded is an Executor for the stream of another node or of a native client, whose answers take room until they were sent.
//
// Other nodes and clients must be given room from different Answers: a node that waits for another's answer may
// hold room for its own client's meanwhile, and two such nodes would wait for each other.
type Bounded struct {
	*Executor
	Answers *admission.Answers
	// Stream ends with the stream: nobody waits for room any more then.
	Stream context.Context
	// Hangup disconnects whoever sends the requests; nil: it always reads.
	Hangup func()
}

var _ peer.Holder = Bounded{}

// Write is the Executor's.
func (b Bounded) Write(req *router.Request, end router.Ender) {
	if b.Answers.Crowded() && req.Refusable() {
		end.End(nil, b.Answers.Refuse())
		return
	}
	b.Executor.Write(req, end)
}

// Hold implements peer.Holder.
func (b Bounded) Hold(bytes int) (sent func()) {
	a := b.Answers.New(b.Stream, admission.Written, b.Hangup)
	a.Finish(bytes)
	return a.Leave
}

// Read is the Executor's.
func (b Bounded) Read(ctx context.Context, req *router.Request) (*router.Reply, error) {
	return b.Bound(ctx, req, func() (*router.Reply, error) { return b.Executor.Read(ctx, req) })
}

// Bound carries out a read by calling read, which takes room from req.Room, here or where the answer comes from. It is
// called again, in its turn, if there was none.
func (b Bounded) Bound(ctx context.Context, req *router.Request, read func() (*router.Reply, error)) (reply *router.Reply, err error) {
	switch req.Op {
	case routerpb.Op_OP_RANGE, routerpb.Op_OP_FETCH, routerpb.Op_OP_TXN:
	default:
		return read()
	}
	a := b.Answers.New(ctx, kindOf(req), b.Hangup)
	if a == nil {
		return read()
	}
	req.Room = a
	err = a.Within(func() error {
		reply, err = read()
		return err
	})
	if err != nil {
		return nil, err
	}
	return held(a, reply), nil
}

// StartRead is the Executor's for gets. What may become large waits on a goroutine of its own.
func (b Bounded) StartRead(req *router.Request, done func(*router.Reply, error)) bool {
	if get, ok := req.Message.(*pb.RangeRequest); !ok || !listing.IsGet(get) {
		return false
	}
	return b.Executor.StartRead(req, func(reply *router.Reply, err error) {
		if err == nil && valueBytes(reply) >= admission.SmallAnswer {
			a := b.Answers.New(b.Stream, admission.Get, b.Hangup)
			if !a.Take(valueBytes(reply)) {
				go func() { done(b.Read(b.Stream, req)) }()
				return
			}
			reply = held(a, reply)
		}
		done(reply, err)
	})
}

// kindOf is what the answer to a read may become.
func kindOf(req *router.Request) admission.Kind {
	if get, ok := req.Message.(*pb.RangeRequest); ok && req.Op == routerpb.Op_OP_RANGE && len(get.RangeEnd) == 0 {
		return admission.Get
	}
	return admission.List
}

// valueBytes is the size of the value that a get has found.
func valueBytes(reply *router.Reply) int {
	if got, ok := reply.Message.(*pb.RangeResponse); ok && len(got.Kvs) > 0 {
		return len(got.Kvs[0].Value)
	}
	return 0
}

// held has the reply hold its room until it was sent.
func held(a *admission.Answer, reply *router.Reply) *router.Reply {
	size := 0
	if a.Used() >= admission.SmallAnswer {
		size = proto.Size(reply.Message)
	}
	if a.Finish(size) {
		reply.Sent = a.Leave
	}
	return reply
}
