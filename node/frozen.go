package node

import (
	"context"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// thaw makes a frozen shard serve again if its merge was given up. That the merge is not in this node's copy of the
// table is not enough: the copy may be too old to show that the merge was begun, or how it ended. So thaw reads the
// newest table. A merge that was given up never comes back.
func (a *agent) thaw(ctx context.Context, r *replica.Replica, operator uint64) {
	m, err := a.node.meta.barrier(ctx)
	if err != nil || m.Shard(r.ID()) == nil || mergeGoesOn(m, r.ID(), operator) {
		return
	}
	a.node.log.Info("a merge was given up; the shard serves again", "shard", r.ID(), "operator", operator)
	a.tell(ctx, r, &shardpb.Command{Kind: shardpb.Kind_THAW, OperatorId: operator})
}

func mergeGoesOn(m *placement.Map, id shard.ID, operator uint64) bool {
	o := m.Operator(id)
	return o != nil && o.ID == operator
}

// secureFrozen returns when this node's replica is frozen by the operator, durably.
func (n *Node) secureFrozen(ctx context.Context, r *replica.Replica, operator uint64) error {
	if err := r.AwaitFrozen(ctx, operator); err != nil {
		return err
	}
	flush := n.pauses.begin(placementpb.OperatorKind_MERGE)
	err := r.SecureFrozen(ctx, operator)
	flush.pass(partFlush)
	return err
}
