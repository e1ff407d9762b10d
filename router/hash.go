package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// hashAttempts is how often a hash of the latest state is restarted when compactions overtake it.
// That takes repeated compactions of what was just written.
const hashAttempts = 5

// HashKV hashes the whole keyspace at a revision, or at the latest cut for 0, from this node's own
// replicas where it has them, so that members whose replicas differ answer differently. The
// division into shards makes no difference. RequestTimeout bounds each step; the whole takes time
// in proportion to the number of keys, and spends at most half of it working.
func (r *Router) HashKV(ctx context.Context, req *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	if req.Revision < 0 {
		return r.hashBefore(ctx, req.Revision)
	}
	at := shard.Revision(req.Revision)
	for attempt := 1; ; attempt++ {
		resp, err := r.hashAt(ctx, at)
		if at != 0 || attempt == hashAttempts || !errors.Is(err, shard.ErrCompacted) {
			return resp, err
		}
	}
}

func (r *Router) hashAt(ctx context.Context, at shard.Revision) (*pb.HashKVResponse, error) {
	compacted := r.cfg.Compactions.Compacted()
	if at != 0 && at < compacted {
		return nil, fmt.Errorf("hash at %d, compacted at %d: %w", at, compacted, shard.ErrCompacted)
	}
	c, err := r.hashCut(ctx, at)
	if err != nil {
		return nil, err
	}
	sum, err := r.hashAll(ctx, c)
	if err != nil {
		return nil, err
	}
	return hashed(c.header, sum, int64(c.at), compacted), nil
}

// hashBefore hashes the keyspace at a negative revision, as etcd does: nothing was there, whatever
// was compacted since.
func (r *Router) hashBefore(ctx context.Context, at int64) (*pb.HashKVResponse, error) {
	c, err := r.hashCut(ctx, 0)
	if err != nil {
		return nil, err
	}
	return hashed(c.header, 0, at, r.cfg.Compactions.Compacted()), nil
}

func hashed(latest shard.Revision, sum uint64, at int64, compacted shard.Revision) *pb.HashKVResponse {
	resp := &pb.HashKVResponse{
		Header: header(latest), Hash: uint32(sum ^ sum>>32), HashRevision: at,
		CompactRevision: int64(compacted),
	}
	if compacted == 0 {
		resp.CompactRevision = -1 // as etcd says "never"
	}
	return resp
}

func (r *Router) hashCut(ctx context.Context, at shard.Revision) (c cut, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := r.minted(ctx, at); err != nil {
		return cut{}, err
	}
	err = r.retrying(ctx, func(int) error {
		c, err = r.cut(ctx, shard.Everything(), at, false)
		return err
	})
	return c, err
}

func (r *Router) hashAll(ctx context.Context, c cut) (sum uint64, err error) {
	for span := c.span; ; {
		began := time.Now()
		part, end, err := r.hashPart(ctx, c, span)
		if err != nil {
			return 0, err
		}
		sum += part.Sum
		switch {
		case len(part.Next) > 0:
			span.Start = part.Next
		case end != nil:
			span.Start = end
		default:
			return sum, nil
		}
		select {
		case <-time.After(time.Since(began)):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// hashPart does one step from the span's start on. end is where the next shard's part starts.
func (r *Router) hashPart(ctx context.Context, c cut, span shard.Span) (hashed *routerpb.HashPart, end []byte, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	reply, end, err := r.askPart(ctx, c, span, r.hasher, func(part shard.Span) *Request {
		return &Request{Op: routerpb.Op_OP_HASH, Message: &pb.RangeRequest{Key: part.Start, RangeEnd: rangeEnd(part)}}
	})
	if err != nil {
		return nil, nil, err
	}
	return reply.Message.(*routerpb.HashPart), end, nil
}

// hasher is the own replica, if there is one that serves, however long it takes: another replica's
// answer would hide a difference.
func (r *Router) hasher(p Place, n int) shard.NodeID {
	if _, ok := r.ownReplica(p); ok {
		return r.cfg.Self
	}
	return r.reader(p, n)
}
