package apply_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// secondNode has a replica of each shard of the first one, which comes by the shard's log, whenever it comes to it, or by
// snapshots. It does only what the protocols of splits and merges let a node do.
type secondNode struct {
	*fixture
	r *reshaping
	// What was done, counted.
	snapshots, entries, compared int
}

// step does something, or nothing, to a replica of a shard that there is or was.
func (s *secondNode) step() {
	id := s.r.pick()
	switch {
	case s.r.oneIn(40):
		s.crashKeeping(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * s.r.IntN(2), RNG: s.r.Rand})
	case s.r.oneIn(60):
		s.restart()
	case s.r.oneIn(5):
		s.backlog.Gather()
	case s.r.oneIn(10):
		s.turn(id)
		_, err := s.machine.Collect(mvcc.CollectLimits{Versions: 1 + s.r.IntN(20)})
		require.NoError(s.t, err)
	case s.gone(id):
		s.leave(id)
	case s.r.oneIn(8):
		s.sendSnapshot(id)
	default:
		s.goOn(id, 1+s.r.IntN(8))
	}
	s.compare(id)
}

// pick draws a shard of those that a node has.
func (r *reshaping) pick() shard.ID {
	ids := slices.Sorted(maps.Keys(r.log))
	return ids[r.IntN(len(ids))]
}

// reshaped reports whether a shard was ever split or merged.
func (r *reshaping) reshaped(id shard.ID) bool {
	was := r.id
	r.turn(id)
	defer r.turn(was)
	return r.machine.View().Since > 0
}

// gone reports whether the shard was merged into another.
func (s *secondNode) gone(id shard.ID) bool {
	return !slices.ContainsFunc(s.r.models, func(m *model) bool { return m.id == id })
}

// goOn applies what there is in the shard's log, so many entries at most, and reports whether that was all.
func (s *secondNode) goOn(id shard.ID, most int) bool {
	s.turn(id)
	rest := s.r.log[id][s.index:]
	n := 0
	for n < len(rest) && n < most && (n == 0 || !s.reshapes(rest[n])) && s.may(id, rest[n]) {
		n++
	}
	require.NoError(s.t, s.machine.Update(slices.Clone(rest[:n]), nil))
	require.False(s.t, s.machine.View().Poisoned)
	s.index += uint64(n)
	s.entries += n
	return n == len(rest)
}

func (s *secondNode) commands(e apply.Entry) []*shardpb.Command {
	var b shardpb.Batch
	require.NoError(s.t, b.UnmarshalVT(e.Data))
	return b.Commands
}

func (s *secondNode) reshapes(e apply.Entry) bool {
	return slices.ContainsFunc(s.commands(e), func(c *shardpb.Command) bool {
		return c.Kind == shardpb.Kind_INIT || c.Kind == shardpb.Kind_SUBSUME
	})
}

// may reports whether the node's replica, which is the one at hand, would come to the entry now.
func (s *secondNode) may(id shard.ID, e apply.Entry) bool {
	for _, c := range s.commands(e) {
		switch {
		case c.Kind == shardpb.Kind_INIT && c.Descriptor_.ParentShardId == 0:
			if s.r.reshaped(id) { // its log was cut
				return false
			}
		case c.Kind == shardpb.Kind_INIT:
			seed, err := s.engine.Local(id, shard.ReplicaID(s.node), apply.SeedKind)
			require.NoError(s.t, err)
			if seed == nil && s.machine.View().Descriptor == nil { // it waits, or is sent a snapshot
				return false
			}
		case c.Kind == shardpb.Kind_SUBSUME && c.Epoch == s.machine.View().Descriptor.Epoch:
			s.turn(shard.DescriptorOf(c.Right).ID)
			frozen := s.machine.View().FrozenBy(c.OperatorId)
			s.turn(id)
			if !frozen {
				return false
			}
		}
	}
	return true
}

// owned reports whether another replica of the node has keys of the span, or a seed for them.
func (s *secondNode) owned(id shard.ID, span shard.Span) bool {
	locals, err := s.engine.Locals()
	require.NoError(s.t, err)
	return slices.ContainsFunc(locals, func(l engine.LocalRecord) bool {
		if l.Shard == id || l.Kind != apply.StateKind && l.Kind != apply.SeedKind {
			return false
		}
		v, err := apply.UnmarshalState(l.Value)
		require.NoError(s.t, err)
		if f := v.Frozen; f != nil && f.Into.ID != id && f.Descriptor.Span.Overlaps(span) {
			return true
		}
		return v.Descriptor != nil && v.Descriptor.Span.Overlaps(span)
	})
}

// sendSnapshot brings the replica to where the first node's is, and reports whether it is there.
func (s *secondNode) sendSnapshot(id shard.ID) bool {
	was := s.r.id
	s.r.turn(id)
	defer s.r.turn(was)
	view := s.r.machine.View()
	s.turn(id)
	if view.Descriptor == nil || view.Applied <= s.index || s.owned(id, view.Descriptor.Span) {
		return view.Applied == s.index
	}
	require.NoError(s.t, s.receive(s.r.stream()))
	require.False(s.t, s.machine.View().Poisoned)
	require.Equal(s.t, view.Applied, s.index)
	s.snapshots++
	return true
}

// bring brings the replica to where the first node's is, if that can be.
func (s *secondNode) bring(id shard.ID) bool {
	for range 100 {
		if s.goOn(id, 1000) {
			return true
		}
		at := s.index
		if s.sendSnapshot(id) {
			return true
		}
		if s.turn(id); s.index == at && !s.may(id, s.r.log[id][at]) {
			return false
		}
	}
	return false
}

// leave removes both replicas of a shard that was merged into another, once its keys are that one's here.
func (s *secondNode) leave(id shard.ID) {
	s.turn(id)
	f := s.machine.View().Frozen
	if f == nil || s.index < uint64(len(s.r.log[id])) {
		s.goOn(id, 1+s.r.IntN(8))
		return
	}
	s.turn(f.Into.ID)
	left := s.machine.View()
	has := left.Descriptor
	if left.Frozen != nil {
		has = left.Frozen.Descriptor
	}
	if !s.gone(f.Into.ID) && (has == nil || has.Epoch < f.Into.Epoch) {
		return // it is still to be taken
	}
	s.aside[id].Close()
	delete(s.aside, id)
	require.NoError(s.t, apply.Discard(s.engine, id, shard.ReplicaID(s.node)))
	require.NoError(s.t, apply.Forget(s.engine, id, shard.ReplicaID(s.node)))
	delete(s.r.log, id)
	s.r.turn(id)
	s.r.machine.Close()
}

// compare requires that both replicas hold the same, if they have applied the same.
func (s *secondNode) compare(id shard.ID) {
	if s.r.log[id] == nil {
		return
	}
	was := s.r.id
	s.r.turn(id)
	defer s.r.turn(was)
	s.turn(id)
	if s.index != s.r.index {
		return
	}
	s.compared++
	require.Equal(s.t, s.r.sum(), s.sum(), "shard %s at index %d", id, s.index)
}

// sum sums up the machine at hand as a replica does.
func (f *fixture) sum() uint64 {
	view := f.machine.View()
	if view.Descriptor == nil {
		return 0
	}
	require.NoError(f.t, f.machine.Store())
	data := f.engine.NewView(view.Descriptor.Span)
	defer data.Close()
	c, err := mvcc.NewChecksum(data, view.Descriptor.Span, view.Compacted)
	require.NoError(f.t, err)
	defer c.Close()
	for done := false; !done; {
		done, err = c.Step(1 << 20)
		require.NoError(f.t, err)
	}
	require.NoError(f.t, apply.AddState(c, view, f.machine.Leases().State()))
	return c.Sum
}

// Whatever a replica came by, log or snapshots, however far it was behind, and whenever its node crashed and gathered: it
// holds what another one does that has applied the same (A1), and nothing else (A17).
func TestASecondNodeHasTheSame(t *testing.T) {
	g := seeded(t)
	f := newNode(t, 1, vfs.NewCrashableMem())
	f.log = make(map[shard.ID][]apply.Entry)
	start := initCommand(shard.Span{Start: []byte("b"), End: []byte("y")})
	start.Descriptor_.Replicas = append(start.Descriptor_.Replicas, &shardpb.Replica{ReplicaId: 2, NodeId: 2})
	start.Descriptor_.NextReplicaId = 3
	f.apply(start)
	first := &model{}
	first.apply(start)
	r := &reshaping{fixture: f, generator: g, t: t, models: []*model{first}, last: first.id}
	r.second = &secondNode{fixture: newNode(t, 2, vfs.NewCrashableMem()), r: r}
	for range 900 {
		r.step()
		for range g.IntN(4) {
			r.second.step()
		}
		require.Empty(t, r.second.nobodys(), "every version is in keys that somebody has")
	}
	require.NotZero(t, r.second.snapshots)
	require.NotZero(t, r.second.entries)
	require.NotZero(t, r.second.compared)
}
