package router

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// sender is one process's way to the nodes of the world.
type sender struct {
	w    *world
	seen *seenRevisions
}

// reader is a node's way to its own replicas.
type reader struct {
	*sender
	self shard.NodeID
}

// StartRead implements Reader.
func (r reader) StartRead(req *Request, done func(*Reply, error)) bool {
	go func() { done(r.Send(context.Background(), r.self, req)) }()
	return true
}

// Send implements Sender.
func (s *sender) Send(ctx context.Context, node shard.NodeID, req *Request) (*Reply, error) {
	w := s.w
	op := operationOf(ctx)
	isWrite := req.Op == routerpb.Op_OP_WRITE
	w.mu.Lock()
	sent := sentRequest{node: node, shard: req.Shard, op: req.Op}
	if isWrite {
		sent.kind = req.Command.Kind
	}
	w.sent = append(w.sent, sent)
	n := len(w.sent)
	if op != nil {
		op.calls++
		n = op.id*1000 + op.calls
		if op.ambiguous && isWrite && body(req) {
			w.violation("T1: operation %d sent %v again after an ambiguous answer", op.id, req.Command.Kind)
		}
	}
	w.mu.Unlock()
	rng := rand.New(rand.NewPCG(w.seed, uint64(n)<<16|uint64(req.Shard)))

	// What the answers of a lost message are.
	lost := func(err error) error {
		if isWrite {
			w.locked(func() { markAmbiguous(op, req) })
			return fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, err)
		}
		return fmt.Errorf("%w: %w", shard.ErrUnavailable, err)
	}
	if !w.travel(ctx, rng) {
		if rng.IntN(2) == 0 { // it was still in the queue
			return nil, fmt.Errorf("%w: %w", shard.ErrUnavailable, context.Cause(ctx))
		}
		if isWrite && rng.IntN(2) == 0 { // it arrives after its caller has left
			err := lost(context.Cause(ctx))
			w.locked(func() { _, _ = w.serve(op, node, copyOf(req), rng) })
			return nil, err
		}
		return nil, lost(context.Cause(ctx))
	}
	fault := rng.IntN(1000) < w.faults
	if fault && rng.IntN(2) == 0 {
		return nil, s.fault(op, req, rng)
	}
	w.mu.Lock()
	reply, err := w.serve(op, node, req, rng)
	w.mu.Unlock()
	if fault {
		if isWrite && rng.IntN(2) == 0 { // an error outside the vocabulary
			w.locked(func() { markAmbiguous(op, req) })
			return nil, errors.New("the reply does not decode")
		}
		return nil, lost(errors.New("stream ended"))
	}
	if !w.travel(ctx, rng) {
		return nil, lost(context.Cause(ctx))
	}
	if err == nil {
		s.seen.observe(reply.Rev)
	}
	return reply, err
}

// markAmbiguous remembers that a write may have been applied, unless applying it again
// changes nothing.
func markAmbiguous(op *operation, req *Request) {
	if op != nil && body(req) {
		op.ambiguous = true
	}
}

// body reports whether a write must not be sent twice.
func body(req *Request) bool {
	k := req.Command.Kind
	return k == shardpb.Kind_PUT || k == shardpb.Kind_DELETE_RANGE || k == shardpb.Kind_TXN || k == shardpb.Kind_LEASE_GRANT
}

func copyOf(req *Request) *Request {
	c := *req
	c.Command = proto.CloneOf(req.Command)
	return &c
}

// fault answers for a request that did nothing.
func (s *sender) fault(op *operation, req *Request, rng *rand.Rand) error {
	certain := []error{
		fmt.Errorf("connection refused: %w", shard.ErrUnavailable), shard.ErrStopped, shard.ErrClockUntrusted,
		&shard.NoReplicaError{Shard: req.Shard}, &shard.NotLeaderError{Shard: req.Shard}, &shard.NotLeaderError{Shard: req.Shard, Leader: 2},
		&shard.WrongShardError{Shard: req.Shard},
	}
	if req.Op == routerpb.Op_OP_WRITE && rng.IntN(4) == 0 {
		s.w.locked(func() { markAmbiguous(op, req) })
		return fmt.Errorf("timed out: %w", shard.ErrUnknownOutcome)
	}
	return certain[rng.IntN(len(certain))]
}

// travel takes a message's time. It returns false if the caller leaves meanwhile.
func (w *world) travel(ctx context.Context, rng *rand.Rand) bool {
	if !w.delayed {
		return ctx.Err() == nil
	}
	t := time.NewTimer(time.Duration(rng.IntN(2_000_000)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve is what a node answers.
func (w *world) serve(op *operation, node shard.NodeID, req *Request, rng *rand.Rand) (*Reply, error) {
	if w.script != nil {
		if reply, err, done := w.script(node, req); done {
			return reply, err
		}
	}
	w.clock++
	s := w.shards[req.Shard]
	if s == nil || s.gone || !slices.Contains(w.nodes, node) {
		return nil, &shard.NoReplicaError{Shard: req.Shard}
	}
	defer w.checkLeases()
	if req.Op == routerpb.Op_OP_WRITE {
		return w.write(op, s, node, req)
	}
	return w.read(s, node, req, rng)
}
