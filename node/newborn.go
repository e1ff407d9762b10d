package node

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// weanTimeout bounds one attempt to cut a log.
const weanTimeout = 5 * time.Second

// nextChild returns what is to be done for a shard that is being split off, nil for
// nothing: to start this node's replica, and not to let one lead that serves nothing.
func (a *agent) nextChild(child *shard.Descriptor, m *placement.Map) func(context.Context) {
	r, running := a.node.host.Replica(child.ID)
	if _, here := child.ReplicaOn(a.node.self.NodeID); !running && here {
		return func(ctx context.Context) { a.start(ctx, child, m) }
	}
	if running && r.Unfit() != "" && r.Leads() {
		return func(ctx context.Context) { a.resign(ctx, r, child) }
	}
	return nil
}

// mayBegin reports whether a replica may start now. One of a shard that was split off and
// that has neither data nor a seed could find INIT in its log at once, and would be
// poisoned: it waits until the parent's replica on this node has given the keys away and
// left the seed. Before the split is committed there is no INIT to be found.
func (a *agent) mayBegin(ctx context.Context, d *shard.Descriptor, own shard.Replica) bool {
	if d.Parent == 0 || own.Learner {
		return true
	}
	if _, any, err := a.node.host.SpanOf(replica.Held{Shard: d.ID, Replica: own.ID}); any || err != nil {
		return err == nil
	}
	m, err := a.node.meta.barrier(ctx) // a copy of the table that is behind would not do
	if err != nil {
		return false
	}
	for _, o := range m.Operators() {
		if o.Child != nil && o.Child.ID == d.ID && o.Phase < placementpb.Phase_COMMITTED {
			return true
		}
	}
	parent, running := a.node.host.Replica(d.Parent)
	if !running {
		if p := m.Shard(d.Parent); p != nil {
			_, comes := p.ReplicaOn(a.node.self.NodeID)
			return !comes
		}
		return true
	}
	view := parent.View()
	if view.Frozen != nil {
		return !view.Frozen.Descriptor.Span.Overlaps(d.Span)
	}
	return view.Poisoned || view.Descriptor != nil && !view.Descriptor.Span.Overlaps(d.Span)
}

// wean cuts the log of a replica behind a split that ended without it.
func (a *agent) wean(ctx context.Context, r *replica.Replica) {
	ctx, cancel := context.WithTimeout(ctx, weanTimeout)
	defer cancel()
	if err := r.Wean(ctx); err != nil {
		a.node.log.Debug("cutting a log", "shard", r.ID(), "error", err)
	}
}
