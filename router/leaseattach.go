package router

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// writeTo sends a command to the shard at p. If the shard refuses to attach a key to a lease that
// is not registered there, the lease is registered and the command sent again: the refusal implies
// that nothing was applied (T1).
func (r *Router) writeTo(ctx context.Context, p Place, n int, req Request) (*Reply, error) {
	for {
		reply, err := r.sendCommand(ctx, p, n, req)
		var refused *shard.UnregisteredLeaseError
		if !errors.As(err, &refused) {
			return reply, err
		}
		if err := r.register(ctx, p, n, refused); err != nil {
			return nil, err
		}
	}
}

// register registers the lease that the shard at p refused. The order of the steps matters (T6): the home's record
// must name the shard's span before the shard accepts a key, so that a revocation of the lease visits the shard. The
// fence is older than the home's answer, and shows whether such a revocation has already come.
func (r *Router) register(ctx context.Context, p Place, n int, refused *shard.UnregisteredLeaseError) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	attached, err := r.attach(ctx, refused.Lease, p.Span)
	if err != nil {
		return err
	}
	cmd, err := command(shardpb.Kind_LEASE_REGISTER, &shardpb.LeaseCommand{
		Lease: refused.Lease, Incarnation: attached.Incarnation, Fence: refused.Fence,
	}, false)
	if err != nil {
		return err
	}
	if r.cfg.Knobs.SlowRegister {
		Pause(ctx, 5)
	}
	_, err = r.sendCommand(ctx, p, n, cmd)
	if errors.Is(err, shard.ErrLeaseRace) {
		return fmt.Errorf("register lease %x: %w: %w", refused.Lease, shard.ErrUnavailable, err) // from the start
	}
	return again(err)
}

// attach adds the span to the lease's record.
func (r *Router) attach(ctx context.Context, lease int64, span shard.Span) (*shardpb.LeaseAnswer, error) {
	var answer *shardpb.LeaseAnswer
	err := r.retrying(ctx, func(n int) error {
		home, err := r.cfg.Cache.Lookup(ctx, shard.HomeKey(lease))
		if err != nil {
			return err
		}
		cmd, err := command(shardpb.Kind_LEASE_ATTACH, &shardpb.LeaseCommand{Lease: lease, Span: spanProto(span)}, false)
		if err != nil {
			return err
		}
		reply, err := r.sendCommand(ctx, home, n, cmd)
		if err != nil {
			return again(err)
		}
		answer = reply.Message.(*shardpb.LeaseAnswer)
		return nil
	})
	return answer, err
}
