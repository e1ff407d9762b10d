package native

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/txn"
)

// writesMax bounds the writes that one stream has in flight (V3): about a tenth of a second of a
// busy node's commits.
const writesMax = 8192

// gate stands between one client's stream and the node (V1, V2, V4).
type gate struct {
	*Server
	exec   peer.Executor
	ctx    context.Context // the stream's
	caller *auth.Caller
	writes atomic.Int64 // in flight

	mu struct {
		sync.Mutex
		closed bool
		work   sync.WaitGroup // writes that the node's router carries out
	}
}

func (s *Server) newGate(ctx context.Context) *gate {
	return &gate{Server: s, exec: s.cfg.Executor(ctx), ctx: ctx, caller: s.cfg.Auth.Of(ctx)}
}

// close returns when the node's router has finished what the stream asked of it, and prevents
// further requests to it (V6). Outcomes of the stream's other writes may still arrive.
func (g *gate) close() {
	g.mu.Lock()
	g.mu.closed = true
	g.mu.Unlock()
	g.mu.work.Wait()
}

// spawn runs f unless the stream has ended, and reports whether it does.
func (g *gate) spawn(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return false
	}
	g.mu.work.Go(f)
	return true
}

// Write implements peer.Executor.
func (g *gate) Write(req *router.Request, end router.Ender) {
	w := &admitted{gate: g, req: req, end: end}
	if err := w.enter(); err != nil {
		end.End(nil, err)
		return
	}
	attached, err := g.admitWrite(req)
	switch {
	case err != nil:
		w.refuse(err)
	case attached == nil:
		w.begin()
	case !g.spawn(func() {
		if err := attached.Attached(g.ctx, g.cfg.Router); err != nil {
			w.refuse(g.unchecked(err))
			return
		}
		w.begin()
	}):
		w.refuse(shard.ErrStopped)
	}
}

// refuse ends a write that did not begin.
func (w *admitted) refuse(err error) {
	w.leave()
	w.end.End(nil, err)
}

// begin has the write carried out.
func (w *admitted) begin() {
	g := w.gate
	if g.isElsewhere(w.req.Relay) {
		g.cfg.Router.RelayWrite(g.ctx, w.req.Relay, w.req, w)
		return
	}
	g.exec.Write(w.req, w)
}

// Hold implements peer.Holder.
func (g *gate) Hold(bytes int) (sent func()) {
	if h, ok := g.exec.(peer.Holder); ok {
		return h.Hold(bytes)
	}
	return nil
}

// admitted is a write in flight.
type admitted struct {
	gate  *gate
	req   *router.Request
	end   router.Ender
	place admission.Place
}

// enter makes room for a write, which leave returns (V3).
func (w *admitted) enter() (err error) {
	class := admission.Write
	if w.req.Command.Kind == shardpb.Kind_CLOSE {
		class = admission.Read // one waits for it, and it needs no more room than that. Exempt, a client could fill the shard's log with it
	}
	if w.place, err = w.gate.cfg.Room.Take(class, len(w.req.Command.Body)); err != nil {
		return err
	}
	if w.gate.writes.Add(1) > writesMax {
		w.leave()
		return fmt.Errorf("the client has %d writes under way: %w", writesMax, shard.ErrOverloaded)
	}
	return nil
}

func (w *admitted) leave() {
	w.gate.writes.Add(-1)
	w.place.Leave()
}

// End implements router.Ender.
func (w *admitted) End(reply *router.Reply, err error) {
	var refused *shard.UnregisteredLeaseError
	routed := err != nil && errors.As(err, &refused) && w.gate.spawn(func() {
		defer w.leave()
		w.end.End(w.gate.route(w.req.Command))
	})
	if !routed {
		w.leave()
		w.end.End(reply, err)
	}
}

// route has the node's router carry out a write whose lease is not registered with its shard (V4).
// It has been admitted.
func (g *gate) route(cmd *shardpb.Command) (*router.Reply, error) {
	switch cmd.Kind {
	case shardpb.Kind_PUT:
		put := &pb.PutRequest{}
		if err := proto.Unmarshal(cmd.Body, put); err != nil {
			return nil, refusal("a body that is none: %v", err)
		}
		resp, err := g.cfg.Router.Put(g.ctx, put)
		if err != nil {
			return nil, err
		}
		return &router.Reply{Rev: shard.Revision(resp.Header.Revision), Message: resp}, nil
	case shardpb.Kind_TXN:
		t := &pb.TxnRequest{}
		if err := proto.Unmarshal(cmd.Body, t); err != nil {
			return nil, refusal("a body that is none: %v", err)
		}
		resp, err := g.cfg.Router.Txn(g.ctx, t)
		if err != nil {
			return nil, err
		}
		return &router.Reply{Rev: shard.Revision(resp.Header.Revision), Message: resp}, nil
	}
	return nil, refusal("a command of kind %s attaches no lease", cmd.Kind)
}

// Read implements peer.Executor.
func (g *gate) Read(ctx context.Context, req *router.Request) (*router.Reply, error) {
	class := admission.Read
	if req.Op == routerpb.Op_OP_LEASE_KEEPALIVE {
		class = admission.Exempt
	}
	place, err := g.cfg.Room.Take(class, 0)
	if err != nil {
		return nil, err
	}
	defer place.Leave()
	if err := g.admitRead(req); err != nil {
		return nil, err
	}
	return g.aboutLeases(ctx, req, func() (*router.Reply, error) {
		if g.isElsewhere(req.Relay) {
			return g.relay(ctx, req)
		}
		return g.exec.Read(ctx, req)
	})
}

// Bounder is an Executor that has room for the answers to its reads (exec.Bounded).
type Bounder interface {
	// Bound carries out a read by calling read, again if there was no room for the answer.
	Bound(ctx context.Context, req *router.Request, read func() (*router.Reply, error)) (*router.Reply, error)
}

// relay has another node answer a read. The answer takes room here until the client has it.
func (g *gate) relay(ctx context.Context, req *router.Request) (*router.Reply, error) {
	node := req.Relay
	ask := func() (*router.Reply, error) { return g.cfg.Router.Relay(ctx, node, req) }
	if b, ok := g.exec.(Bounder); ok {
		return b.Bound(ctx, req, ask)
	}
	return ask()
}

// StartRead implements peer.Executor.
func (g *gate) StartRead(req *router.Request, done func(*router.Reply, error)) bool {
	if req.Op != routerpb.Op_OP_RANGE || g.isElsewhere(req.Relay) {
		return false
	}
	place, err := g.cfg.Room.Take(admission.Read, 0)
	if err == nil {
		if err = g.admitRead(req); err != nil {
			place.Leave()
		}
	}
	if err != nil {
		done(nil, err)
		return true
	}
	started := g.exec.StartRead(req, func(reply *router.Reply, err error) {
		place.Leave()
		done(reply, err)
	})
	if !started {
		place.Leave()
	}
	return started
}

// admitWrite checks a write and drops the fields that a client may not set. The leases that it attaches, if there are any
// to be checked, are still to be.
func (g *gate) admitWrite(req *router.Request) (attached *auth.Needs, err error) {
	cmd, revision := req.Command, shard.Revision(req.Command.Revision)
	if cmd.Descriptor_ != nil || cmd.Child != nil || cmd.Right != nil || len(cmd.ProtoReflect().GetUnknown()) > 0 {
		cmd = &shardpb.Command{Kind: cmd.Kind, Epoch: cmd.Epoch, Body: cmd.Body}
		req.Command = cmd
	}
	cmd.Stamp, cmd.Revision, cmd.OperatorId, cmd.Reserve, cmd.Seen = 0, 0, 0, 0, 0
	req.Grows, req.Promise, req.Begun = false, false, false
	if cmd.Kind == shardpb.Kind_PUT {
		req.Grows = true
		if isPlainPut(cmd.Body) && txn.LoggedBytes(len(cmd.Body)) <= txn.DefaultMaxRequestBytes && g.cfg.Auth.Open() {
			return nil, nil // nearly all writes: nothing is allocated for them
		}
	}
	needs := &auth.Needs{Caller: g.caller}
	switch cmd.Kind {
	case shardpb.Kind_PUT:
		put := &pb.PutRequest{}
		err = g.admitBody(cmd, put, func() error { return txn.CheckPut(put) }, func() error { return needs.Put(put) })
	case shardpb.Kind_DELETE_RANGE:
		del := &pb.DeleteRangeRequest{}
		err = g.admitBody(cmd, del, func() error { return txn.CheckDeleteRange(del) }, func() error { return needs.Delete(del) })
	case shardpb.Kind_TXN:
		t := &pb.TxnRequest{}
		err = g.admitBody(cmd, t, func() error { return txn.CheckTxn(t, txn.DefaultMaxOps) }, func() error { return needs.Txn(t) })
		req.Grows = err == nil && txn.Grows(t)
	case shardpb.Kind_CLOSE:
		if revision > g.bound.limit() {
			return nil, refusal("a close to revision %d, which is in the future", revision)
		}
		cmd.Body, cmd.Revision = nil, int64(revision)
		err = forClient(g.user(g.caller)) // it changes no key, and any read of several shards may need it
	default:
		err = refusal("a command of kind %s is not a client's to give", cmd.Kind)
	}
	if err != nil || len(needs.Leases) == 0 {
		return nil, err
	}
	return needs, nil
}

// isPlainPut reports whether the body is a put of a key, a value and a lease and nothing else,
// which CheckPut would accept. Almost all are, and need not be unmarshalled here.
func isPlainPut(body []byte) bool {
	hasKey := false
	m := etcdwire.Read(body)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 1 && isBytes:
			hasKey = len(m.Bytes) > 0
		case m.ID == 2 && isBytes, m.ID == 3 && !isBytes:
		default:
			return false
		}
	}
	return hasKey && m.Whole()
}

// admitBody checks the body of a command, of which m is the empty message, and whether the user may give it. Once that
// matters, the body is made anew from what was checked: whoever carries it out may read the same bytes differently.
func (g *gate) admitBody(cmd *shardpb.Command, m proto.Message, check, permit func() error) error {
	if txn.LoggedBytes(len(cmd.Body)) > txn.DefaultMaxRequestBytes {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	open := g.cfg.Auth.Open()
	if err := (proto.UnmarshalOptions{DiscardUnknown: !open}).Unmarshal(cmd.Body, m); err != nil {
		return refusal("a body that is none: %v", err)
	}
	if err := check(); err != nil || open {
		return err
	}
	if err := permit(); err != nil {
		return forClient(err)
	}
	body, err := proto.Marshal(m)
	if err != nil {
		return refusal("a body that is none: %v", err)
	}
	cmd.Body = body
	return nil
}

// admitRead checks a read.
func (g *gate) admitRead(req *router.Request) error {
	var err error
	switch req.Op {
	case routerpb.Op_OP_RANGE:
		err = txn.CheckRange(req.Message.(*pb.RangeRequest))
	case routerpb.Op_OP_TXN:
		t := req.Message.(*pb.TxnRequest)
		if !txn.IsReadOnly(t) {
			return refusal("a transaction that writes was sent as a read")
		}
		err = txn.CheckTxn(t, txn.DefaultMaxOps)
	case routerpb.Op_OP_LEASE_KEEPALIVE: // which is exempt from what bounds other reads (V3)
		if q, _ := req.Message.(*routerpb.LeaseQuery); len(q.GetLeases()) > router.RenewalsMax {
			return refusal("a renewal of %d leases, the most are %d", len(q.Leases), router.RenewalsMax)
		}
	case routerpb.Op_OP_PROBE, routerpb.Op_OP_FETCH, routerpb.Op_OP_LEASE_TTL, routerpb.Op_OP_LEASE_KEYS, routerpb.Op_OP_LEASE_LIST:
	default:
		return refusal("operation %s is not a client's to ask for", req.Op)
	}
	if err != nil {
		return err
	}
	return g.permitRead(req)
}

func refusal(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, "flotilla: native request refused: "+format, args...)
}
