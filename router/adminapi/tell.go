package adminapi

import (
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

func (v *View) node(n *placement.Node) *adminpb.Node {
	load := v.Load.Nodes[n.ID]
	out := &adminpb.Node{
		Id: uint64(n.ID), Name: n.Name, State: n.State.String(), PeerAddr: n.PeerAddr, ClientUrls: n.ClientURLs,
		AdminAddr: n.AdminAddr, ServerVersion: n.ServerVersion, Labels: n.Labels, HeardMillis: v.age(load.Heard), Replicas: uint32(len(v.Map.OnNode(n.ID))),
		DiskTotal: load.DiskTotal, DiskFree: load.DiskFree, FsyncMicros: load.Fsync.Microseconds(), ClockDistrusted: v.Distrusted[n.ID],
		UptimeMillis: v.Uptimes[n.ID].Milliseconds(), ClockOffsetMicros: v.Offsets[n.ID].Microseconds(),
	}
	for _, d := range v.Map.Shards() {
		if s := v.Load.Shards[d.ID]; s.Leader == n.ID {
			out.Leaders++
			out.Writes += s.Writes
		}
	}
	return out
}

func (v *View) shard(d *shard.Descriptor) *adminpb.Shard {
	load := v.Load.Shards[d.ID]
	out := &adminpb.Shard{
		Id: uint64(d.ID), Span: &adminpb.Span{Start: d.Span.Start, End: d.Span.End}, Epoch: d.Epoch, Generation: d.Generation,
		Slot: uint32(d.Slot), PreferredNode: v.name(d.PreferredNode), Leader: v.name(load.Leader), Term: v.Terms[d.ID],
		HeardMillis: v.age(load.Heard), MeasuredMillis: v.age(load.SpanSince), Bytes: load.Bytes, Versions: load.Keys,
		Writes: load.Writes, WriteBytes: load.WriteBytes, Reads: load.Reads,
		PeakWrites: load.PeakWrites, PeakWriteBytes: load.PeakWriteBytes,
		Middle: point(load.Middle), Balance: point(load.Balance), Operator: v.operator(v.Map.Operator(d.ID)),
		CommitMicros: v.Commits[d.ID].Half.Microseconds(), CommitSlowMicros: v.Commits[d.ID].Slow.Microseconds(),
	}
	for _, r := range d.Replicas {
		out.Replicas = append(out.Replicas, v.replica(d.ID, r))
	}
	return out
}

func (v *View) replica(id shard.ID, r shard.Replica) *adminpb.Replica {
	out := &adminpb.Replica{Id: uint64(r.ID), Node: v.name(r.Node), Learner: r.Learner, HeardMillis: -1, Lag: -1, Unfit: v.Load.Shards[id].Unfit[r.Node]}
	if size, told := v.Sizes[id][r.Node]; told {
		out.Bytes, out.HeardMillis = size, v.age(v.Load.Nodes[r.Node].Heard)
	}
	if behind, known := v.Load.Shards[id].Behind[r.Node]; known {
		out.Lag = int64(behind)
	}
	return out
}

// point is nil when no key is known.
func point(p placement.SplitPoint) *adminpb.SplitPoint {
	if len(p.Key) == 0 {
		return nil
	}
	return &adminpb.SplitPoint{Key: p.Key, Left: p.Left}
}

func (v *View) operator(o *placement.Operator) *adminpb.Operator {
	if o == nil {
		return nil
	}
	out := &adminpb.Operator{
		Id: o.ID, Kind: o.Kind.String(), Phase: o.Phase.String(), Why: o.Why,
		From: v.name(o.From), To: v.name(o.To), Key: o.Key, With: uint64(o.With), Shard: uint64(o.Shard),
	}
	if o.Child != nil {
		out.Child = uint64(o.Child.ID)
	}
	return out
}

func (v *View) step(s placement.Step) *adminpb.Step {
	return &adminpb.Step{
		Kind: s.Kind.String(), Shard: uint64(s.Shard), From: v.name(s.From), To: v.name(s.To), Key: s.Key, With: uint64(s.With),
		Rule: string(s.Rule), Why: s.Why, Effect: s.Effect, Bytes: s.Bytes,
	}
}
