package node

import (
	"context"
	"slices"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// leaving returns the replicas on this node that the table has taken away; a node that was
// down finds them when it starts. A replica that an old copy of the table does not list
// yet is not among them (Map.Gone).
func (a *agent) leaving(m *placement.Map) []replica.Held {
	return slices.DeleteFunc(a.node.host.Held(), func(r replica.Held) bool { return !m.Gone(r.Shard, r.Replica) })
}

// inTheWay reports whether a replica must wait until others are removed from the node: one
// of its own shard, of which only one can run, or data where its own is to come.
func (a *agent) inTheWay(d *shard.Descriptor, leaving []replica.Held) bool {
	return slices.ContainsFunc(leaving, func(r replica.Held) bool {
		span, any, err := a.node.host.SpanOf(r)
		return r.Shard == d.ID || err != nil || any && span.Overlaps(d.Span)
	})
}

// remove takes a replica off the node. What fails is tried again.
func (a *agent) remove(ctx context.Context, r replica.Held, m *placement.Map) {
	owned, err := a.owned(m)
	if err == nil {
		err = a.node.host.Remove(ctx, r.Shard, r.Replica, owned)
	}
	if err != nil && ctx.Err() == nil {
		a.node.log.Warn("cannot remove a replica that was moved away; trying again", "shard", r.Shard, "replica", r.Replica, "error", err)
		return
	}
	a.poke()
}

// owned returns the keys of which replicas that stay on the node have data, or may have by
// what the table says. Those that have not started are not meant: they wait for others to
// be removed whole.
func (a *agent) owned(m *placement.Map) ([]shard.Span, error) {
	var spans []shard.Span
	for _, r := range a.node.host.Held() {
		if r.Shard == shard.MetaID || m.Gone(r.Shard, r.Replica) {
			continue
		}
		span, any, err := a.node.host.SpanOf(r)
		if err != nil {
			return nil, err
		}
		if any {
			spans = append(spans, span)
		}
		if d := m.Shard(r.Shard); d != nil {
			spans = append(spans, d.Span)
		}
		for _, o := range m.Operators() {
			if o.Child != nil && o.Child.ID == r.Shard {
				spans = append(spans, o.Child.Span)
			}
		}
	}
	return spans, nil
}
