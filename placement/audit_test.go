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
		{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{Descriptor_: &shardpb.Descriptor{
			ShardId: uint64(shard.FirstDataID), Replicas: []*shardpb.Replica{nil},
		}}}},
	} {
		require.Equal(t, placementpb.Code_INVALID_ARGUMENT, s.Apply(c).Code)
	}
}
