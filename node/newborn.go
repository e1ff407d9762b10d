package node

import (
	"context"
	"errors"
	"slices"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// start starts the node's replica. While a shard's descriptor is still the first one, its replicas may be the
// founders of the group. With any later descriptor the group was founded (O5), and a replica that has not started
// until then joins.
func (a *agent) start(ctx context.Context, d *shard.Descriptor, m *placement.Map) {
	own, _ := d.ReplicaOn(a.node.self.NodeID)
	if !a.mayBegin(ctx, d, own) {
		return
	}
	if err := a.startReplica(d, own, m); errors.Is(err, replica.ErrRemoved) || errors.Is(err, shard.ErrUnavailable) {
		// The table, or a newer version of it, takes it away; or it is just stopping.
		a.node.log.Debug("not starting a replica", "shard", d.ID, "replica", own.ID, "error", err)
		return
	} else if err != nil {
		a.node.fail(err)
		return
	}
	if a.leadsFirst(d) {
		a.node.elect.hold(replica.Held{Shard: d.ID, Replica: own.ID}, a.node.othersOf(d, m))
	}
	a.poke()
}

func (a *agent) startReplica(d *shard.Descriptor, own shard.Replica, m *placement.Map) error {
	if d.Generation > 1 {
		return a.node.host.Join(d.ID, own.ID, own.Learner)
	}
	members := make(map[shard.ReplicaID]string)
	for _, r := range d.Replicas {
		members[r.ID] = m.Node(r.Node).PeerAddr
	}
	return a.node.host.Start(d.ID, own.ID, members)
}

// leadsFirst reports whether this node should be the first leader of the shard's group.
func (a *agent) leadsFirst(d *shard.Descriptor) bool {
	lead := d.PreferredNode
	if parent, ok := a.node.host.Replica(d.Parent); ok && d.Generation == 1 && parent.LeaderNode() != 0 {
		lead = parent.LeaderNode() // for the split, one node should lead both
	}
	return lead == a.node.self.NodeID
}

// mayBegin reports whether a replica may start now. A replica of a shard that was split off, with neither data nor a
// seed, could find INIT in its log at once and would be poisoned. So it waits until the parent's replica on this node
// has given the keys away and left the seed.
func (a *agent) mayBegin(ctx context.Context, d *shard.Descriptor, own shard.Replica) bool {
	if d.Parent == 0 || own.Learner {
		return true
	}
	if _, any, err := a.node.host.SpanOf(replica.Held{Shard: d.ID, Replica: own.ID}); any || err != nil {
		return err == nil
	}
	m, err := a.node.meta.barrier(ctx) // an old copy of the table would not do
	switch {
	case err != nil:
		return false
	case !mayHaveBegun(m, d.ID):
		return true
	}
	if parent, running := a.node.host.Replica(d.Parent); running {
		return gaveAway(parent.View(), d.Span)
	}
	p := m.Shard(d.Parent)
	if p == nil {
		return true
	}
	_, comes := p.ReplicaOn(a.node.self.NodeID)
	return !comes
}

// mayHaveBegun reports whether the log of a shard that was split off may contain INIT. It cannot before the split is
// committed.
func mayHaveBegun(m *placement.Map, id shard.ID) bool {
	return !slices.ContainsFunc(m.Operators(), func(o *placement.Operator) bool {
		return o.Child != nil && o.Child.ID == id && o.Phase < placementpb.Phase_COMMITTED
	})
}

// gaveAway reports whether a parent's replica no longer has any key of the span, or will never leave a seed for it.
func gaveAway(parent shard.View, span shard.Span) bool {
	has := parent.Descriptor
	if parent.Frozen != nil { // by a merge, with everything it has
		has = parent.Frozen.Descriptor
	}
	return parent.Poisoned || has != nil && !has.Span.Overlaps(span)
}
