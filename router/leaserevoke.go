package router

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Revoke ends a lease and deletes its keys, in each shard at one revision or, if there are many, at
// several. If the answer to the first step was lost and the lease is not found afterwards, it was
// revoked. An error after the lease was marked is shard.ErrUnknownOutcome; the leader of its home
// completes the revocation.
func (r *Router) Revoke(ctx context.Context, req *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	if req.ID == 0 { // this is no lease's ID, and a shard would call it malformed
		return nil, fmt.Errorf("revoke lease 0: %w", shard.ErrLeaseNotFound)
	}
	v := &revocation{router: r, lease: req.ID}
	if err := v.carryOut(ctx); err != nil {
		if v.begun && !errors.Is(err, shard.ErrUnknownOutcome) {
			err = fmt.Errorf("revoke lease %x: %w: %w", req.ID, shard.ErrUnknownOutcome, err)
		}
		return nil, err
	}
	if v.mu.deleted > 0 {
		return &pb.LeaseRevokeResponse{Header: header(v.mu.deleted)}, nil
	}
	return &pb.LeaseRevokeResponse{Header: r.seen(0)}, nil
}

// Expire ends the incarnation of a lease that the leader of its home found expired in the given
// reign. shard.ErrLeaseRace means that the reign is over, or that the ID belongs to another lease
// by now. A lease that is not found was ended by somebody else, which is not an error.
func (r *Router) Expire(ctx context.Context, lease, incarnation int64, reign uint64) error {
	v := &revocation{router: r, lease: lease, incarnation: incarnation, reign: reign, begun: true}
	return v.carryOut(ctx)
}

// revocation is a lease that is being revoked.
type revocation struct {
	router      *Router
	lease       int64
	incarnation int64 // 0 until known
	reign       uint64
	// begun is set when the lease is, or may be, marked. If it is not found after that, somebody
	// else has completed the revocation.
	begun bool

	mu struct {
		sync.Mutex
		deleted shard.Revision // the largest at which keys were deleted; 0 if none were
	}
}

// carryOut performs the steps. The order is the protocol (T7): a marked lease gets no new spans, so
// once the last of them is detached it has no keys.
func (v *revocation) carryOut(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	spans, gone, err := v.mark(ctx)
	if err != nil || gone {
		return err
	}
	if err := v.detach(ctx, spans); err != nil {
		return err
	}
	return v.forget(ctx)
}

// mark marks the lease as being revoked. It returns the spans where it may have keys, or that
// nothing is left to do: if all keys are in its home, marking deletes them.
func (v *revocation) mark(ctx context.Context) (spans []shard.Span, gone bool, err error) {
	for {
		answer, err := v.atHome(ctx, shardpb.Kind_LEASE_REVOKE, &shardpb.LeaseCommand{Reign: v.reign})
		switch {
		case v.begun && (errors.Is(err, shard.ErrLeaseNotFound) || v.reign == 0 && errors.Is(err, shard.ErrLeaseRace)):
			return nil, true, nil // somebody else has finished; there may be another of its ID
		case err != nil:
			return nil, false, err
		case answer.More:
			// It is marked now, and stays so in any later reign.
			v.incarnation, v.reign = answer.Incarnation, 0
		default:
			v.incarnation = answer.Incarnation
			return spansOf(answer.Spans), answer.Gone, nil
		}
	}
}

// detach deletes the keys in all shards that overlap the spans.
func (v *revocation) detach(ctx context.Context, spans []shard.Span) error {
	if v.router.cfg.Knobs.SkipDetach && len(spans) > 0 {
		spans = spans[1:]
	}
	return v.router.everywhere(ctx, spans, func(p Place, n int, part shard.Span) error {
		for {
			answer, err := v.step(ctx, p, n, shardpb.Kind_LEASE_DETACH, &shardpb.LeaseCommand{Span: spanProto(part)})
			if err != nil {
				return again(err)
			}
			if !answer.More {
				return nil
			}
		}
	})
}

// forget deletes the record.
func (v *revocation) forget(ctx context.Context) error {
	_, err := v.atHome(ctx, shardpb.Kind_LEASE_FORGET, &shardpb.LeaseCommand{})
	return err
}

// atHome performs a step at the shard that holds the record.
func (v *revocation) atHome(ctx context.Context, kind shardpb.Kind, cmd *shardpb.LeaseCommand) (*shardpb.LeaseAnswer, error) {
	var answer *shardpb.LeaseAnswer
	err := v.router.retrying(ctx, func(n int) error {
		p, err := v.router.cfg.Cache.Lookup(ctx, shard.HomeKey(v.lease))
		if err != nil {
			return err
		}
		answer, err = v.step(ctx, p, n, kind, cmd)
		v.begun = v.begun || err == nil || errors.Is(err, shard.ErrUnknownOutcome)
		return again(err)
	})
	return answer, err
}

// step sends a command about this incarnation of the lease.
func (v *revocation) step(ctx context.Context, p Place, n int, kind shardpb.Kind, cmd *shardpb.LeaseCommand) (*shardpb.LeaseAnswer, error) {
	cmd.Lease, cmd.Incarnation = v.lease, v.incarnation
	req, err := command(kind, cmd, false)
	if err != nil {
		return nil, err
	}
	reply, err := v.router.sendCommand(ctx, p, n, req)
	if err != nil {
		return nil, err
	}
	answer := reply.Message.(*shardpb.LeaseAnswer)
	if answer.Deleted > 0 {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.mu.deleted = max(v.mu.deleted, reply.Rev)
	}
	return answer, nil
}
