package router

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// A command passes through these functions, each of which does one thing: write (admission), writeAdmitted (retries),
// writeTo (registers the lease), sendCommand (one attempt at one shard), send.

// turn waits until admission allows a write to the shard that owns key (T8).
func (r *Router) turn(ctx context.Context, key []byte) (admission.Turn, error) {
	p, ok := r.cfg.Cache.find(key)
	if !ok {
		return admission.Turn{}, nil // a node that knows no shards has sent them nothing
	}
	turn, err := r.cfg.Lanes.Enter(ctx, p.ID)
	if err != nil {
		err = timedOut(err) // nothing was sent
	}
	return turn, err
}

// write sends a command to the shard that owns key once admission allows it, retrying as far as is
// safe (T1).
func (r *Router) write(ctx context.Context, key []byte, req Request) (*Reply, error) {
	turn, err := r.turn(ctx, key)
	if err != nil {
		return nil, err
	}
	reply, err := r.writeAdmitted(ctx, key, req)
	turn.Leave(err)
	return reply, err
}

// writeAdmitted is write after admission.
func (r *Router) writeAdmitted(ctx context.Context, key []byte, req Request) (*Reply, error) {
	if p, ok := r.cfg.Cache.find(key); ok {
		if reply, err, done := r.tryLeader(ctx, p, req); done {
			return reply, err
		}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var reply *Reply
	err := r.retrying(ctx, func(n int) error {
		p, err := r.cfg.Cache.Lookup(ctx, key)
		if err != nil {
			return err
		}
		reply, err = r.writeTo(ctx, p, n, req)
		return err
	})
	return reply, err
}

// tryLeader sends a write to the shard at p once, without a context of its own: the common case. If
// it returns false there was no leader to send it to, or the failure was certain, and the caller
// starts over (T1).
func (r *Router) tryLeader(ctx context.Context, p Place, req Request) (*Reply, error, bool) {
	if p.Leader == 0 || r.cfg.Knobs.RetryUnknown {
		return nil, nil, false
	}
	req.GiveUp = r.patience.begin()
	reply, err := r.writeTo(ctx, p, 0, req)
	switch {
	case err == nil:
		return reply, nil, true
	case errors.Is(err, ErrRequestTimeout): // certain or not
	case certain(err):
		(&backoff{}).wait(ctx, err)
		return nil, nil, false
	}
	return nil, r.final(ctx, err), true
}

// sendCommand sends a command to the shard at p.
func (r *Router) sendCommand(ctx context.Context, p Place, n int, req Request) (*Reply, error) {
	req.Command.Epoch = p.Epoch
	return r.send(ctx, p, r.writer(p, n), &req)
}

// again turns an unknown outcome into a certain failure, for an idempotent command, which may be
// retried after any answer.
func again(err error) error {
	if !errors.Is(err, shard.ErrUnknownOutcome) {
		return err
	}
	return fmt.Errorf("%w: %v", shard.ErrUnavailable, err)
}

// command makes the request for an etcd write. grows says that it puts something.
func command(kind shardpb.Kind, req proto.Message, grows bool) (Request, error) {
	body, err := encode(kind, req)
	if err != nil {
		return Request{}, err
	}
	return Request{Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: kind, Body: body}, Grows: grows}, nil
}

func encode(kind shardpb.Kind, req proto.Message) ([]byte, error) {
	body, err := proto.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode %v command: %w", kind, err)
	}
	return body, nil
}

// putCommand is command for a put.
func putCommand(req *pb.PutRequest) Request {
	return Request{Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: shardpb.Kind_PUT, Body: encodePut(req)}, Grows: true}
}

func encodePut(req *pb.PutRequest) []byte {
	return etcdwire.AppendPut(make([]byte, 0, etcdwire.PutBytes(req)), req)
}

// mark makes a command that carries only a revision.
func mark(kind shardpb.Kind, rev shard.Revision) Request {
	return Request{Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: kind, Revision: int64(rev)}}
}
