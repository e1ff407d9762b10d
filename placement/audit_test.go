package placement

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// TestAuditSees breaks a good map in its wire form, one invariant at a time. It also
// shows that no such map is taken from a snapshot or an update.
func TestAuditSees(t *testing.T) {
	first := func(p *placementpb.Map) *shardpb.Descriptor { return p.Shards[0].Descriptor_ }
	for _, c := range []struct {
		name, want string
		damage     func(p *placementpb.Map)
	}{
		{"other format", "format 2", func(p *placementpb.Map) { p.Format = 2 }},
		{"no cluster", "P6", func(p *placementpb.Map) { p.ClusterId = 0 }},
		{"no version", "P6", func(p *placementpb.Map) { p.Version = 0 }},
		{"no shards", "P1", func(p *placementpb.Map) { p.Shards = nil }},
		{"keys before", "P1", func(p *placementpb.Map) { first(p).Start = []byte("a") }},
		{"keys between", "P1", func(p *placementpb.Map) { first(p).End = []byte("\x01") }},
		{"keys after", "P1", func(p *placementpb.Map) { p.Shards[2].Descriptor_.End = []byte("\xff") }},
		{"shard twice", "P2", func(p *placementpb.Map) { first(p).ShardId++ }},
		{"shard above next", "P2", func(p *placementpb.Map) { p.NextShardId-- }},
		{"shard from the future", "P6", func(p *placementpb.Map) { p.Shards[0].Version = 2 }},
		{"no epoch", "P6", func(p *placementpb.Map) { first(p).Epoch = 0 }},
		{"slot twice", "P3", func(p *placementpb.Map) { first(p).Slot = 2 }},
		{"neighbours' slot", "P3", func(p *placementpb.Map) { first(p).Slot = 1 }},
		{"slot too high", "slot 256", func(p *placementpb.Map) { first(p).Slot = slotCount }},
		{"replica twice", "P4", func(p *placementpb.Map) { first(p).Replicas[1].ReplicaId = 1 }},
		{"node twice in shard", "P4", func(p *placementpb.Map) { first(p).Replicas[1].NodeId = 1 }},
		{"replica above next", "P4", func(p *placementpb.Map) { first(p).NextReplicaId = 3 }},
		{"no voters", "P4", func(p *placementpb.Map) { first(p).Replicas = nil }},
		{"replica nowhere", "P4", func(p *placementpb.Map) { first(p).Replicas[0].NodeId = 9 }},
		{"empty replica", "without content", func(p *placementpb.Map) { first(p).Replicas[0] = nil }},
		{"replica on a removed node", "P4", func(p *placementpb.Map) { p.Nodes[0].State = placementpb.NodeState_REMOVED }},
		{"no descriptor", "descriptor is missing", func(p *placementpb.Map) { p.Shards[0].Descriptor_ = nil }},
		{"meta under another ID", "meta group", func(p *placementpb.Map) { p.Meta = p.Shards[0] }},
		{"node twice", "P2", func(p *placementpb.Map) { p.Nodes = append(p.Nodes, p.Nodes[0]) }},
		{"node above next", "P2", func(p *placementpb.Map) { p.NextNodeId-- }},
		{"node from the future", "P6", func(p *placementpb.Map) { p.Nodes[0].Version = 2 }},
		{"node in no state", "state 9", func(p *placementpb.Map) { p.Nodes[0].State = 9 }},
		{"node without a name", "name is empty", func(p *placementpb.Map) { p.Nodes[0].Name = "" }},
		{"name not UTF-8", "UTF-8", func(p *placementpb.Map) { p.Nodes[0].Name = "\xff" }},
		{"name twice", "P5", func(p *placementpb.Map) { p.Nodes[0].Name = p.Nodes[1].Name }},
		{"address twice", "P5", func(p *placementpb.Map) { p.Nodes[0].PeerAddr = p.Nodes[1].PeerAddr }},
		{"incarnation twice", "P5", func(p *placementpb.Map) { p.Nodes[0].Incarnation = p.Nodes[1].Incarnation }},
		{"label twice", "given twice", func(p *placementpb.Map) { p.Nodes[0].Labels = []*placementpb.Label{{Name: "a"}, {Name: "a"}} }},
		{"label without a name", "no name", func(p *placementpb.Map) { p.Nodes[0].Labels = []*placementpb.Label{nil} }},
		{"compacted below nothing", "P7", func(p *placementpb.Map) { p.Compacted = -1 }},
		{"operators from the future", "P6", func(p *placementpb.Map) { p.Operators = &placementpb.Operators{Version: 2} }},
		{"operator without content", "operator is missing", withOperator(func(o *placementpb.Operators) { o.Operators[0] = nil })},
		{"operator from the future", "from the future", withOperator(func(o *placementpb.Operators) { o.Operators[0].OperatorId = 2 })},
		{"operator in no phase", "in phase PHASE_UNKNOWN", withOperator(func(o *placementpb.Operators) { o.Operators[0].Phase = 0 })},
		{"operator past its end", "in phase COMMITTED", withOperator(func(o *placementpb.Operators) {
			o.Operators[0].Kind, o.Operators[0].Phase = placementpb.OperatorKind_MOVE, placementpb.Phase_COMMITTED
		})},
		{"operator of no kind", "knows no OPERATOR_UNKNOWN", withOperator(func(o *placementpb.Operators) { o.Operators[0].Kind = 0 })},
		{"operator of no shard", "there is no shard 9", withOperator(func(o *placementpb.Operators) { o.Operators[0].ShardId = 9 })},
		{"operators of one shard", "P9", withOperator(func(o *placementpb.Operators) { o.Operators = append(o.Operators, o.Operators[0]) })},
		{"shard held twice", "and by another", withOperator(func(o *placementpb.Operators) {
			o.Operators = append(o.Operators, &placementpb.Operator{OperatorId: 1, ShardId: 3, WithShardId: 2, Kind: placementpb.OperatorKind_MERGE, Phase: placementpb.Phase_PREPARED})
		})},
		{"split without a child", "not one that is to come", withOperator(func(o *placementpb.Operators) { o.Operators[0].Child = nil })},
		{"child that is there", "not one that is to come", withOperator(func(o *placementpb.Operators) { o.Operators[0].Child.ShardId = 3 })},
		{"child of other keys", "does not come from shard 2", withOperator(func(o *placementpb.Operators) { o.Operators[0].Child.Start = []byte("\x02") })},
		{"child of another epoch", "does not come from shard 2", withOperator(func(o *placementpb.Operators) { o.Operators[0].Child.Epoch = 1 })},
		{"child with its parent's slot", "does not come from shard 2", withOperator(func(o *placementpb.Operators) { o.Operators[0].Child.Slot = 0 })},
		{"child without replicas", "no replica votes", withOperator(func(o *placementpb.Operators) { o.Operators[0].Child.Replicas = nil })},
		{"merge with another", "right neighbour", withOperator(func(o *placementpb.Operators) {
			o.Operators[0] = &placementpb.Operator{OperatorId: 1, ShardId: 2, WithShardId: 4, Kind: placementpb.OperatorKind_MERGE, Phase: placementpb.Phase_PREPARED}
		})},
		{"setting twice", "P8", func(p *placementpb.Map) {
			p.Settings.Settings = append(p.Settings.Settings, p.Settings.Settings[0])
		}},
		{"bad setting", "replication factor is 9", func(p *placementpb.Map) { p.Settings.Settings[0].Value = "9" }},
		{"no replication factor", "missing", func(p *placementpb.Map) { p.Settings.Settings = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := wideMap(t, 3).Proto()
			c.damage(p)
			_, err := MapOf(p)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// withOperator damages a map in which shard 2 is being split; there it is good.
func withOperator(damage func(*placementpb.Operators)) func(*placementpb.Map) {
	return func(p *placementpb.Map) {
		child := (&shard.Descriptor{ID: 5, Epoch: 2, Generation: 1, Slot: 3, Replicas: []shard.Replica{{ID: 1, Node: 1}}, NextReplicaID: 2}).Proto()
		child.Start, child.End = []byte("\x01"), p.Shards[0].Descriptor_.End
		p.NextShardId = 6
		p.Operators = &placementpb.Operators{Version: 1, Operators: []*placementpb.Operator{{
			OperatorId: 1, ShardId: 2, Kind: placementpb.OperatorKind_SPLIT, Phase: placementpb.Phase_PREPARED, Key: []byte("\x01"), Child: child,
		}}}
		if _, err := MapOf(p); err != nil {
			panic(err) // it is no test of the damage then
		}
		damage(p.Operators)
	}
}

// Whatever stands in the log, applying it gives a result.
func TestApplyEntryIsTotal(t *testing.T) {
	newer, err := (&placementpb.Command{Format: 2}).MarshalVT()
	require.NoError(t, err)
	unknown, err := (&placementpb.Command{Format: commandFormat}).MarshalVT()
	require.NoError(t, err)
	for _, entry := range [][]byte{nil, []byte("no command"), newer, unknown} {
		m := wideMap(t, 3)
		s := &State{m: m}
		r := s.ApplyEntry(entry)
		require.Equal(t, placementpb.Code_INVALID_ARGUMENT, r.Code)
		require.Equal(t, m.Version(), r.Version)
		require.Same(t, m, s.Map())
	}
}

// Commands built by hand can hold what bytes cannot.
func TestApplyWithoutContent(t *testing.T) {
	s := &State{m: wideMap(t, 3)}
	for _, c := range []*placementpb.Command{
		nil,
		{Body: &placementpb.Command_AddNode{}},
		{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{}}},
		{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{}}},
		{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{}}},
		{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{Descriptor_: &shardpb.Descriptor{
			ShardId: uint64(shard.FirstDataID), Replicas: []*shardpb.Replica{nil},
		}}}},
	} {
		require.Equal(t, placementpb.Code_INVALID_ARGUMENT, s.Apply(c).Code)
	}
}
