package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// A leader is on its way when another node leads than the one preferred, and that could
// lead. What could not come true does not keep the shard busy.
func TestLeadersOnTheirWay(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := threeNodes(t) // shard 2 prefers node 1, shard 3 node 2
	onItsWay := placement.Step{Kind: placement.TransferLeader, Shard: 2, From: 3, To: 1}
	for name, c := range map[string]struct {
		edit func(*placement.Load)
		want []placement.Step
	}{
		"all well":        {func(*placement.Load) {}, []placement.Step{onItsWay}},
		"nobody leads":    {func(l *placement.Load) { l.Shards[2] = placement.ShardLoad{} }, nil},
		"it is silent":    {func(l *placement.Load) { l.Nodes[1] = placement.NodeLoad{Heard: now.Add(-time.Hour)} }, nil},
		"its clock":       {func(l *placement.Load) { l.Nodes[1] = placement.NodeLoad{Heard: now, ClockOff: true} }, nil},
		"it is behind":    {func(l *placement.Load) { l.Shards[2].Behind[1] = 5000 }, nil},
		"it is not known": {func(l *placement.Load) { delete(l.Shards[2].Behind, 1) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			load := &placement.Load{Nodes: make(map[shard.NodeID]placement.NodeLoad), Shards: map[shard.ID]placement.ShardLoad{
				2: {Leader: 3, Behind: map[shard.NodeID]uint64{1: 0, 2: 0, 3: 0}},
				3: {Leader: 2, Behind: map[shard.NodeID]uint64{1: 0, 2: 0, 3: 0}},
			}}
			for id := range shard.NodeID(3) {
				load.Nodes[id+1] = placement.NodeLoad{Heard: now}
			}
			c.edit(load)
			require.Equal(t, c.want, transfers(m, load, now))
		})
	}
}

// A move is given up when its new node is dead, or the replica there unfit, but not once it
// changes votes, and not as long as nobody was there to hear of the node.
func TestHopelessMoves(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	state := threeNodesState(t)
	begin := func(c *placementpb.Command) *placement.Operator {
		require.NoError(t, placement.ResultError(state.Apply(c)))
		ops := state.Map().Operators()
		return ops[len(ops)-1]
	}
	add := &placementpb.Command{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{
		Node: &placementpb.Node{Name: "n4", PeerAddr: "n4:1", Incarnation: []byte("n4")},
	}}}
	require.NoError(t, placement.ResultError(state.Apply(add)))
	move := begin(placement.BeginMove(state.Map().Shard(2), 1, 4, "a test"))
	begin(placement.BeginMove(state.Map().Shard(3), 1, 0, "a test")) // goes nowhere
	dead := state.Map().Rules().DeadAfter + time.Second
	load := func(silent, listening time.Duration, unfit string) *placement.Load {
		return &placement.Load{
			Since: now.Add(-listening), Nodes: map[shard.NodeID]placement.NodeLoad{4: {Heard: now.Add(-silent)}},
			Shards: map[shard.ID]placement.ShardLoad{2: {Unfit: map[shard.NodeID]string{4: unfit}}},
		}
	}
	require.Empty(t, hopeless(state.Map(), load(time.Second, dead, ""), now))
	require.Equal(t, []*placement.Operator{move}, hopeless(state.Map(), load(dead, dead, ""), now))
	require.Empty(t, hopeless(state.Map(), load(dead, time.Second, ""), now), "nobody has listened for so long")
	require.Equal(t, []*placement.Operator{move}, hopeless(state.Map(), load(time.Second, dead, "poisoned"), now))
	started := &placementpb.Command{Body: &placementpb.Command_AdvanceOperator{AdvanceOperator: &placementpb.AdvanceOperator{
		ShardId: 2, OperatorId: move.ID, Phase: placementpb.Phase_STARTED,
	}}}
	require.NoError(t, placement.ResultError(state.Apply(started)))
	require.Empty(t, hopeless(state.Map(), load(dead, dead, ""), now))
}
