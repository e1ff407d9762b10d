package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// What a move changes in the table takes it from stage to stage to its end, whichever of its
// nodes it has, and whatever an earlier one has left.
func TestStagesOfMoves(t *testing.T) {
	members := func(replicas ...shard.Replica) *shard.Descriptor {
		return &shard.Descriptor{ID: 7, Replicas: replicas, NextReplicaID: 4, PreferredNode: 1}
	}
	one, two, three := shard.Replica{ID: 1, Node: 1}, shard.Replica{ID: 2, Node: 2}, shard.Replica{ID: 3, Node: 3}
	learner, voter := shard.Replica{ID: 4, Node: 4, Learner: true}, shard.Replica{ID: 4, Node: 4}
	for name, c := range map[string]struct {
		from, to shard.NodeID
		d        *shard.Descriptor
		want     []moveStage
		end      []shard.Replica
	}{
		"from one node to another": {2, 4, members(one, two, three),
			[]moveStage{moveAdopts, moveAdmits, moveStarts, movePromotes, moveLeaves}, []shard.Replica{one, three, voter}},
		"from the preferred node": {1, 4, members(one, two, three),
			[]moveStage{moveAdopts, moveAdmits, moveStarts, movePromotes, movePrefers, moveLeaves}, []shard.Replica{two, three, voter}},
		"only there":                         {0, 4, members(one, two, three), []moveStage{moveAdopts, moveAdmits, moveStarts, movePromotes}, []shard.Replica{one, two, three, voter}},
		"only away":                          {3, 0, members(one, two, three), []moveStage{moveStarts, moveLeaves}, []shard.Replica{one, two}},
		"only away, from the preferred node": {1, 0, members(one, two, three), []moveStage{moveStarts, movePrefers, moveLeaves}, []shard.Replica{two, three}},
		"a learner that one before left behind": {2, 4, members(one, two, three, learner),
			[]moveStage{moveAdmits, moveStarts, movePromotes, moveLeaves}, []shard.Replica{one, three, voter}},
		"that learner, away": {4, 0, members(one, two, three, learner), []moveStage{moveStarts, moveLeaves}, []shard.Replica{one, two, three}},
	} {
		t.Run(name, func(t *testing.T) {
			o, d := &placement.Operator{Shard: 7, From: c.from, To: c.to, Phase: placementpb.Phase_PREPARED}, c.d
			was := append([]shard.Replica(nil), d.Replicas...)
			var stages []moveStage
			for stageOf(o, d) != moveEnds {
				stage := stageOf(o, d)
				require.Less(t, len(stages), 9, "it does not end")
				stages = append(stages, stage)
				switch stage {
				case moveAdopts:
					d = withLearner(d, o.To)
				case moveAdmits: // changes the group, and starts the move then
					require.Equal(t, placementpb.Phase_PREPARED, o.Phase, "O3")
					started := *o
					started.Phase = placementpb.Phase_STARTED
					require.Equal(t, movePromotes, stageOf(&started, d))
					stages, o = append(stages, moveStarts), &started
				case moveStarts:
					started := *o
					started.Phase = placementpb.Phase_STARTED
					o = &started
				case movePromotes:
					d = withVoter(d, o.To)
				case movePrefers:
					d = preferring(d, o.To)
				case moveLeaves:
					require.NotEqual(t, o.From, d.PreferredNode, "it would be given the lead back")
					d = without(d, o.From)
				}
			}
			require.Equal(t, c.want, stages)
			require.Equal(t, c.end, d.Replicas)
			require.Equal(t, was, c.d.Replicas, "what was read is not changed")
		})
	}
}
