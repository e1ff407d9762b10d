package replica

import (
	"context"
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Freeze stops the shard's service so that its left neighbour, into, can take over its keys. Call it on the group's
// leader. It does nothing if that was done already. After an error the shard may be frozen all the same.
func (r *Replica) Freeze(ctx context.Context, into, own *shard.Descriptor, operator uint64) error {
	if r.View().FrozenBy(operator) {
		return nil
	}
	err := r.reshape(ctx, &shardpb.Command{Kind: shardpb.Kind_FREEZE, Epoch: own.Epoch, Descriptor_: into.Proto(), OperatorId: operator})
	if err != nil && !r.View().FrozenBy(operator) {
		return fmt.Errorf("freeze shard %s for shard %s: %w", r.id, into.ID, err)
	}
	r.proclaim()
	return nil
}

// AwaitFrozen returns when this replica is frozen by the operator.
func (r *Replica) AwaitFrozen(ctx context.Context, operator uint64) error {
	if err := r.waitView(ctx, func(v shard.View) bool { return v.FrozenBy(operator) }); err != nil {
		return fmt.Errorf("wait for shard %s to be frozen: %w", r.id, err)
	}
	return nil
}

// SecureFrozen is AwaitFrozen, and returns when that is durable: from then on the replica touches
// its keys no more, whatever happens to the node, unless the merge is given up.
func (r *Replica) SecureFrozen(ctx context.Context, operator uint64) error {
	if err := r.AwaitFrozen(ctx, operator); err != nil {
		return err
	}
	if err := r.host.cfg.Engine.Sync(); err != nil {
		return fmt.Errorf("secure that shard %s is frozen: %w", r.id, err)
	}
	return nil
}

// Subsume takes over the keys of the right neighbour, all of whose replicas are frozen by the operator. Call it on
// the group's leader. It does nothing if that was done already. After an error it may have happened all the same.
func (r *Replica) Subsume(ctx context.Context, merged, right *shard.Descriptor, operator uint64) error {
	view := r.View()
	if view.Descriptor == nil {
		return view.Absent(r.id)
	}
	took := func() bool { d := r.View().Descriptor; return d != nil && d.Epoch >= merged.Epoch }
	if took() {
		return nil
	}
	err := r.reshape(ctx, &shardpb.Command{
		Kind: shardpb.Kind_SUBSUME, Epoch: view.Descriptor.Epoch, Descriptor_: merged.Proto(), Right: right.Proto(), OperatorId: operator,
	})
	if err != nil && !took() {
		return fmt.Errorf("merge shard %s into shard %s: %w", right.ID, r.id, err)
	}
	return nil
}
