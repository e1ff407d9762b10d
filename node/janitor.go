package node

import (
	"context"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// leftover is a replica on this node that the table has taken away.
type leftover struct {
	replica.Held
	data shard.Span // the keys of which it may have data
	any  bool       // whether it may have any data
}

// leaving returns the replicas that the table has taken away from this node; a node that was down
// finds them when it starts. A replica that an old copy of the table does not list yet is not among
// them (O6).
func (a *agent) leaving(m *placement.Map) []leftover {
	var out []leftover
	for _, r := range a.node.host.Held() {
		if !m.Gone(r.Shard, r.Replica) || a.awaited(r, m) {
			continue
		}
		span, any, err := a.node.host.SpanOf(r)
		if err != nil { // then it may be anything; removing it fails and reports the error
			span, any = shard.Everything(), true
		}
		out = append(out, leftover{r, span, any})
	}
	return out
}

// awaited reports whether the remains of a removed replica are still needed: its shard was merged
// into its left neighbour, whose replica on this node has not taken them over yet.
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
	return !running || lacks(left.View(), f)
}

// lacks reports whether the left shard's replica has yet to take over the right one's data. A poisoned replica never
// will.
func lacks(left shard.View, f *shard.Frozen) bool {
	has := left.Descriptor
	if left.Frozen != nil { // by the next merge
		has = left.Frozen.Descriptor
	}
	return !left.Poisoned && (has == nil || has.Epoch < f.Into.Epoch)
}

// blocks reports whether a replica of d must not start before this one is removed: only one replica
// of a shard can run, and data of the old must not be taken for data of the new.
func (l leftover) blocks(d *shard.Descriptor) bool {
	return l.Shard == d.ID || l.any && l.data.Overlaps(d.Span)
}

// remove removes a replica from the node. What fails is retried.
func (a *agent) remove(ctx context.Context, r leftover, m *placement.Map) {
	if r.Shard == shard.MetaID {
		a.node.meta.resign(r.Replica)
	}
	err := a.node.host.Remove(ctx, r.Shard, r.Replica)
	if err != nil && ctx.Err() == nil {
		a.node.log.Warn("cannot remove a replica that was moved away; trying again", "shard", r.Shard, "replica", r.Replica, "error", err)
		return
	}
	a.poke()
}
