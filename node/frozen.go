package node

import (
	"context"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// nextFrozen returns what is to be done for a frozen shard that this node leads: to let it
// serve again when its merge was given up, and nothing as long as that is under way.
func (a *agent) nextFrozen(r *replica.Replica, m *placement.Map) func(context.Context) {
	operator := r.View().Frozen.Operator
	if mergeGoesOn(m, r.ID(), operator) {
		return nil
	}
	return func(ctx context.Context) {
		// A copy that is behind does not know yet, or not any more, that the merge was begun
		// or what came of it. One that was given up does not come back.
		m, err := a.node.meta.barrier(ctx)
		if err != nil || m.Shard(r.ID()) == nil || mergeGoesOn(m, r.ID(), operator) {
			return
		}
		a.node.log.Info("a merge was given up; the shard serves again", "shard", r.ID(), "operator", operator)
		a.tell(ctx, r, &shardpb.Command{Kind: shardpb.Kind_THAW, OperatorId: operator})
	}
}

func mergeGoesOn(m *placement.Map, id shard.ID, operator uint64) bool {
	o := m.Operator(id)
	return o != nil && o.ID == operator
}

// awaited reports whether what a replica has left, which is gone, is still to be taken: it
// was merged into its left neighbour, whose replica on this node has not come to it yet.
func (a *agent) awaited(r replica.Held, m *placement.Map) bool {
	f, err := a.node.host.FrozenOf(r)
	if f == nil || err != nil || m.Shard(r.Shard) != nil {
		return false
	}
	d := m.Shard(f.Into.ID)
	if d == nil {
		return false
	}
	own, here := d.ReplicaOn(a.node.self.NodeID)
	if !here || !f.For(a.node.self.NodeID, d.ID, own.ID) {
		return false
	}
	left, running := a.node.host.Replica(d.ID)
	if !running {
		return true
	}
	view := left.View()
	has := view.Descriptor
	if view.Frozen != nil { // by the next merge
		has = view.Frozen.Descriptor
	}
	return !view.Poisoned && (has == nil || has.Epoch < f.Into.Epoch)
}
