package placement

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// wideMap is a map of any number of shards on three nodes; boundaries are even over
// three-byte keys.
func wideMap(t testing.TB, shards int) *Map {
	t.Helper()
	init := &placementpb.InitCluster{ClusterId: 1, ReplicationFactor: 3}
	for i := range 3 {
		n := testNode(fmt.Sprint("n", i), fmt.Sprint("disk", i))
		n.NodeId = uint64(i + 1)
		init.Nodes = append(init.Nodes, n)
	}
	first, err := newMap(init)
	require.NoError(t, err)
	var splits [][]byte
	for i := 1; i < shards; i++ {
		splits = append(splits, binary.BigEndian.AppendUint32(nil, uint32(i<<24/shards))[1:])
	}
	p := first.Proto()
	p.Shards, p.NextShardId = nil, uint64(shard.FirstDataID)+uint64(shards)
	for _, e := range firstShards(splits, first.Nodes(), 3, 1) {
		p.Shards = append(p.Shards, e.proto())
	}
	m, err := MapOf(p)
	require.NoError(t, err)
	return m
}

func TestSlotsBeyond256Shards(t *testing.T) {
	m := wideMap(t, 1000)
	var use slotUse
	for _, d := range m.Shards() {
		use[d.Slot]++
	}
	require.Equal(t, 1000/slotCount, slices.Min(use[:]))
	require.Equal(t, 1000/slotCount+1, slices.Max(use[:]))
}

func TestSlotAvoidsNeighbours(t *testing.T) {
	var use slotUse
	for i := range use {
		use[i] = 2
	}
	use[3], use[7], use[9] = 0, 0, 1
	require.Equal(t, shard.Slot(9), use.take(3, 7))
	require.Equal(t, shard.Slot(3), use.take(7))
}

// A split and a merge reach a follower as what they changed; what is gone is not named.
func TestUpdateDisplacesShards(t *testing.T) {
	m := wideMap(t, 4)
	second, third := *m.Shards()[1], *m.Shards()[2]

	merged := m.edit()
	second.Span.End, second.Epoch, second.Generation = third.Span.End, 2, 2
	merged.putShards([]entry{{&second, merged.version}})
	require.NoError(t, merged.Audit())
	require.Nil(t, merged.Shard(third.ID))

	split := merged.edit()
	left, right := second, second
	left.Span.End, left.Epoch, left.Generation = []byte("\x60"), 3, 3
	right.Span.Start, right.ID, right.Slot, right.Epoch, right.Generation = []byte("\x60"), split.nextShard, 9, 1, 1
	split.nextShard++
	split.putShards([]entry{{&right, split.version}, {&left, split.version}})
	require.NoError(t, split.Audit())

	for _, from := range []*Map{m, merged, {}} {
		got, err := from.Apply(split.UpdateSince(from.Version()))
		require.NoError(t, err)
		require.Equal(t, split, got)
	}
}

func TestApplyRefuses(t *testing.T) {
	m := wideMap(t, 4)
	next := m.edit()
	next.compacted = 5
	later := next.edit()
	later.compacted = 6

	same, err := later.Apply(next.UpdateSince(1))
	require.NoError(t, err)
	require.Same(t, later, same, "an older update changes nothing")

	_, err = m.Apply(later.UpdateSince(2))
	require.ErrorIs(t, err, ErrUpdateGap)

	foreign := later.UpdateSince(0)
	foreign.Map.ClusterId = 99
	_, err = m.Apply(foreign)
	require.ErrorContains(t, err, "cluster 63")

	hole := later.UpdateSince(0) // its slice of shards is its own
	hole.Map.Shards = slices.Delete(hole.Map.Shards, 1, 2)
	_, err = m.Apply(hole)
	require.ErrorContains(t, err, "P1")

	empty, err := m.Apply(nil)
	require.ErrorContains(t, err, "cluster 0")
	require.Nil(t, empty)
}

func TestAdvertises(t *testing.T) {
	n := &Node{PeerAddr: "a:1", ClientURLs: []string{"http://a:2"}, AdminAddr: "a:3", ServerVersion: "v1"}
	said := func(change func(a *placementpb.Advertised)) bool {
		a := &placementpb.Advertised{PeerAddr: "a:1", ClientUrls: []string{"http://a:2"}, AdminAddr: "a:3", ServerVersion: "v1"}
		change(a)
		return n.Advertises(a)
	}
	require.True(t, said(func(*placementpb.Advertised) {}))
	require.False(t, said(func(a *placementpb.Advertised) { a.PeerAddr = "b:1" }))
	require.False(t, said(func(a *placementpb.Advertised) { a.ClientUrls = nil }))
	require.False(t, said(func(a *placementpb.Advertised) { a.AdminAddr = "" }))
	require.False(t, said(func(a *placementpb.Advertised) { a.ServerVersion = "v2" }))
}

func TestEmptyMap(t *testing.T) {
	m := NewState().Map()
	require.NoError(t, m.Audit())
	require.Nil(t, m.Lookup([]byte("a")))
	require.Empty(t, m.Overlapping(shard.Everything()))
	require.Nil(t, m.Shard(shard.FirstDataID))
	require.Nil(t, m.Shard(shard.MetaID))
	require.Nil(t, m.Node(1))
	require.Nil(t, m.UpdateSince(0))
	require.Zero(t, m.ReplicationFactor())

	restored := NewState()
	require.NoError(t, restored.Restore(NewState().Snapshot()))
	require.Equal(t, m, restored.Map())
}

func FuzzApplyEntry(f *testing.F) {
	for _, c := range goldenCommands() {
		entry, err := EncodeCommand(c.command)
		require.NoError(f, err)
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		s := &State{m: wideMap(t, 3)}
		s.ApplyEntry(entry)
		require.NoError(t, s.Audit())
	})
}

func BenchmarkMap(b *testing.B) {
	for _, shards := range []int{1024, 10000} {
		m := wideMap(b, shards)
		keys := make([][]byte, 4096)
		for i := range keys {
			keys[i] = binary.BigEndian.AppendUint32(nil, uint32(i)*2654435761)
		}
		b.Run(fmt.Sprintf("lookup/shards=%d", shards), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				m.Lookup(keys[i%len(keys)])
			}
		})
		b.Run(fmt.Sprintf("overlapping/shards=%d", shards), func(b *testing.B) {
			b.ReportAllocs()
			span := shard.Span{Start: []byte("\x20"), End: []byte("\x28")}
			for range b.N {
				m.Overlapping(span)
			}
		})
		b.Run(fmt.Sprintf("update-shard/shards=%d", shards), func(b *testing.B) {
			b.ReportAllocs()
			s := &State{m: m}
			for i := range b.N {
				d := *s.Map().Shards()[i%shards]
				d.PreferredNode = shard.NodeID(1 + (d.PreferredNode % 3))
				r := s.Apply(&placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{
					ExpectedGeneration: d.Generation, Descriptor_: d.Proto(),
				}}})
				if r.Code != placementpb.Code_OK {
					b.Fatal(r)
				}
			}
		})
		b.Run(fmt.Sprintf("follow-delta/shards=%d", shards), func(b *testing.B) {
			b.ReportAllocs()
			next := m.edit()
			d := *m.Shards()[shards/2]
			d.Generation++
			next.putShards([]entry{{&d, next.version}})
			for range b.N {
				if _, err := m.Apply(next.UpdateSince(m.Version())); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("snapshot/shards=%d", shards), func(b *testing.B) {
			b.ReportAllocs()
			s := &State{m: m}
			for range b.N {
				s.Snapshot()
			}
		})
	}
}

// A replica is gone when its ID was given and is not in the map, and in no map from then
// on does it come back. One that is still to come is not gone.
func TestGone(t *testing.T) {
	s := NewState()
	apply := func(c *placementpb.Command) {
		t.Helper()
		require.NoError(t, ResultError(s.Apply(c)))
	}
	init := &placementpb.InitCluster{ClusterId: 1, ReplicationFactor: 3}
	for i := range 4 {
		n := testNode(fmt.Sprint("n", i), fmt.Sprint("disk", i))
		n.NodeId = uint64(i + 1)
		init.Nodes = append(init.Nodes, n)
	}
	apply(&placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: init}})
	first := s.Map()
	d := first.Shards()[0]
	require.False(t, first.Gone(shard.MetaID, 1), "the map does not track it")
	for id := range shard.ReplicaID(5) {
		require.False(t, id > 0 && first.Gone(d.ID, id), "replica %d is there or still to come", id)
	}

	moved := *d
	moved.Replicas = append(slices.Clone(d.Replicas[:2]), shard.Replica{ID: 4, Node: 4})
	moved.PreferredNode = 0
	apply(&placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{ExpectedGeneration: 1, Descriptor_: moved.Proto()}}})
	require.True(t, s.Map().Gone(d.ID, 3))
	require.False(t, s.Map().Gone(d.ID, 4))
	require.False(t, first.Gone(d.ID, 4), "an older map does not know it yet")
	require.False(t, s.Map().Gone(d.ID, 5))

	child := d.ID + 1
	require.False(t, s.Map().Gone(child, 1), "still to come")
	apply(&placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{
		ExpectedGeneration: 2, Operator: &placementpb.Operator{ShardId: uint64(d.ID), Kind: placementpb.OperatorKind_SPLIT, Key: []byte("m")},
	}}})
	require.False(t, s.Map().Gone(child, 1), "an operator is making it")
	o := s.Map().Operator(d.ID)
	apply(&placementpb.Command{Body: &placementpb.Command_CancelOperator{CancelOperator: &placementpb.CancelOperator{ShardId: uint64(d.ID), OperatorId: o.ID}}})
	require.True(t, s.Map().Gone(child, 1))
}
