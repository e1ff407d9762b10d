// Package exec answers routed requests from the replicas of this node.
//
// It is where a request reaches its shard: it checks the epoch, waits for the read
// barrier and the floor, and calls the replica. It never forwards and never retries; the
// router does. A subscription is passed on unchecked: the replica's hub compares the epoch
// itself, because it also learns of new epochs, and none can slip in between.
package exec

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/replica"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"github.com/flotilla-kv/flotilla/shard/watch"
)

// floorWait bounds how long a read waits until a CLOSE that its sender has seen committed is
// applied here.
const floorWait = time.Second

// Executor answers requests. Safe for concurrent use.
type Executor struct {
	host *replica.Host
	// space reports whether writes that grow the store must be refused.
	space func() error
}

// New returns an Executor over the node's replicas. space returns an error (wrapping
// shard.ErrNoSpace) while the store must not grow.
func New(host *replica.Host, space func() error) *Executor {
	return &Executor{host: host, space: space}
}

// Write proposes the command of an OP_WRITE request and reports its outcome to end exactly once.
// end must not block.
func (e *Executor) Write(req *router.Request, end router.Ender) {
	r, ok := e.host.Serving(req.Shard)
	if !ok {
		end.End(nil, &shard.NoReplicaError{Shard: req.Shard})
		return
	}
	cmd := req.Command
	if req.Grows {
		if err := e.space(); err != nil {
			end.End(nil, err)
			return
		}
	}
	if cmd.Kind == shardpb.Kind_CLOSE {
		// A floor that was applied holds for ever: there is no need to write it again.
		if v := r.View(); v.Floor >= shard.Revision(cmd.Revision) && owns(v, req.Epoch) {
			end.End(&router.Reply{Rev: v.Rev, Floor: v.Floor, Compacted: v.Compacted, Index: v.Applied}, nil)
			return
		}
		if req.Promise {
			r.Promise(cmd.Epoch, shard.Revision(cmd.Revision), func(v shard.View, err error) {
				if err != nil {
					end.End(nil, err)
					return
				}
				end.End(&router.Reply{Rev: v.Rev, Floor: v.Floor, Compacted: v.Compacted, Index: v.Applied}, nil)
			})
			return
		}
	}
	r.Propose(cmd, func(result shard.Result) {
		if result.Err != nil {
			end.End(nil, result.Err)
			return
		}
		end.End(&router.Reply{Rev: result.Revision, Message: result.Response}, nil)
	})
}

// Read answers every other request.
func (e *Executor) Read(ctx context.Context, req *router.Request) (*router.Reply, error) {
	r, ok := e.host.Serving(req.Shard)
	if !ok {
		return nil, &shard.NoReplicaError{Shard: req.Shard}
	}
	if ask := atHome(req.Op); ask != nil {
		return e.readHome(ctx, r, req, ask)
	}
	view, err := e.view(ctx, r, req)
	if err != nil {
		return nil, err
	}
	return e.read(r, req, view)
}

// StartRead is the asynchronous Read for requests that wait for nothing but the barrier, as most
// do: done is called once and must not block. For other requests it returns false and does nothing.
func (e *Executor) StartRead(req *router.Request, done func(*router.Reply, error)) bool {
	if req.Op != routerpb.Op_OP_RANGE || req.Serializable || req.At != 0 {
		return false
	}
	r, ok := e.host.Serving(req.Shard)
	if !ok {
		return false
	}
	r.StartBarrier(func(view shard.View, err error) {
		if err == nil && !owns(view, req.Epoch) {
			err = wrongShard(r, view)
		}
		if err != nil {
			done(nil, err)
			return
		}
		if rr := req.Message.(*pb.RangeRequest); listing.IsGet(rr) {
			if resp, ok := r.GetHeld(rr.Key, view); ok {
				done(&router.Reply{Rev: view.Rev, Floor: view.Floor, Compacted: view.Compacted, Message: resp}, nil)
				return
			}
		}
		r.Spawn(func() { done(e.read(r, req, view)) }) // from the store: other reads wait behind this
	})
	return true
}

// read reads from a replica that may answer the request and has at least what view describes.
func (e *Executor) read(r *replica.Replica, req *router.Request, view shard.View) (_ *router.Reply, err error) {
	at := view.Rev
	if req.At != 0 {
		at = req.At
	}
	reply := &router.Reply{Rev: view.Rev, Floor: view.Floor, Compacted: view.Compacted}
	switch req.Op {
	case routerpb.Op_OP_PROBE:
	case routerpb.Op_OP_RANGE:
		reply.Message, err = wrap(list(r, req, at))
	case routerpb.Op_OP_TXN:
		reply.Message, err = wrap(r.ReadTxn(req.Message.(*pb.TxnRequest), at, req.Room))
	case routerpb.Op_OP_FETCH:
		reply.Message, err = wrap(fetch(r, req, at))
	case routerpb.Op_OP_HASH:
		reply.Message, err = wrap(hash(r, req, at))
	case routerpb.Op_OP_LEASE_KEYS:
		reply.Message, err = wrap(leaseKeys(r, req))
	default:
		err = fmt.Errorf("shard %d was asked for unknown operation %v", req.Shard, req.Op)
	}
	if errors.Is(err, shard.ErrCompacted) && req.At == 0 && r.View().Compacted > at {
		// The latest state is never compacted: a compaction came between view and read.
		err = fmt.Errorf("read shard %d during a compaction: %w", req.Shard, shard.ErrUnavailable)
	}
	if err != nil {
		return nil, r.Doubt(err)
	}
	return reply, nil
}

// Subscribe opens a feed at the node's replica of the shard (router.Subscriber).
func (e *Executor) Subscribe(sub router.Subscription, ready func()) (router.Feed, error) {
	r, ok := e.host.Serving(sub.Shard)
	if !ok {
		return nil, &shard.NoReplicaError{Shard: sub.Shard}
	}
	s, err := r.Subscribe(watch.Options{Epoch: sub.Epoch, Span: sub.Span, From: sub.From, PrevKV: sub.PrevKV, Ready: ready})
	if err != nil {
		return nil, err // not s: a nil *Subscription would make a Feed that is not nil
	}
	return feed{s, r}, nil
}

// feed is a subscription whose errors are looked at as those of other reads are.
type feed struct {
	*watch.Subscription
	replica *replica.Replica
}

// Poll implements router.Feed.
func (f feed) Poll(limit int) (shard.Changes, error) {
	out, err := f.Subscription.Poll(limit)
	if err != nil {
		err = f.replica.Doubt(err)
	}
	return out, err
}

// Heed tells the feeds of this node's replica of the shard what its leader has promised
// (router.Heeder).
func (e *Executor) Heed(ctx context.Context, id shard.ID, floor shard.Revision, index uint64) error {
	r, ok := e.host.Serving(id)
	if !ok {
		return &shard.NoReplicaError{Shard: id}
	}
	return r.Heed(ctx, floor, index)
}

// view waits until the replica may answer the request and returns its state then.
func (e *Executor) view(ctx context.Context, r *replica.Replica, req *router.Request) (shard.View, error) {
	view := r.View()
	if !req.Serializable {
		var err error
		if view, err = r.Barrier(ctx); err != nil {
			return shard.View{}, err
		}
	}
	if view.Descriptor == nil {
		// It may be about to begin, or being merged. No further barrier is needed: what was written before this
		// one came has been applied here, and while the shard serves nothing, nothing is written.
		view = r.Begun(ctx)
	}
	if !owns(view, req.Epoch) {
		return shard.View{}, wrongShard(r, view)
	}
	if view.Floor >= req.At {
		return view, nil
	}
	if !req.Closed {
		return shard.View{}, &shard.NotClosedError{Shard: req.Shard, Floor: view.Floor}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, floorWait, &shard.NotClosedError{Shard: req.Shard, Floor: view.Floor})
	defer cancel()
	if err := r.WaitFloor(ctx, req.At); err != nil {
		return shard.View{}, err
	}
	if view = r.View(); !owns(view, req.Epoch) {
		return shard.View{}, wrongShard(r, view)
	}
	return view, nil
}

func owns(v shard.View, epoch uint64) bool {
	return v.Descriptor != nil && v.Descriptor.Epoch == epoch
}

func wrongShard(r *replica.Replica, v shard.View) error {
	if v.Descriptor == nil {
		return r.Refusal(v)
	}
	return v.WrongShard(r.ID())
}

// list answers a range that lies in one shard.
func list(r *replica.Replica, req *router.Request, at shard.Revision) (*pb.RangeResponse, error) {
	rr := req.Message.(*pb.RangeRequest)
	o := listing.OptionsFor(rr)
	o.Room = req.Room
	got, err := r.Fetch(shard.RequestSpan(rr.Key, rr.RangeEnd), at, o)
	if err != nil {
		return nil, err
	}
	return listing.Respond(rr, got), nil
}

func fetch(r *replica.Replica, req *router.Request, at shard.Revision) (*pb.RangeResponse, error) {
	rr := req.Message.(*pb.RangeRequest)
	got, err := r.Fetch(shard.RequestSpan(rr.Key, rr.RangeEnd), at, listing.FetchOptions{
		Limit: req.Limit, KeysOnly: rr.KeysOnly, CountOnly: rr.CountOnly, NoCount: req.NoCount, Bytes: req.Bytes,
		Room: req.Room,
	})
	if err != nil {
		return nil, err
	}
	return &pb.RangeResponse{Kvs: got.KVs, Count: got.Count, More: got.More}, nil
}

// hashBytes is how much of a span one OP_HASH covers: about a millisecond's work.
const hashBytes = 512 << 10

func hash(r *replica.Replica, req *router.Request, at shard.Revision) (*routerpb.HashPart, error) {
	rr := req.Message.(*pb.RangeRequest)
	h, err := r.Hash(shard.RequestSpan(rr.Key, rr.RangeEnd), at, hashBytes)
	if err != nil {
		return nil, err
	}
	return &routerpb.HashPart{Sum: h.Sum, Next: h.Next}, nil
}

// wrap prevents a typed nil in the interface when there is an error.
func wrap[M proto.Message](m M, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}
