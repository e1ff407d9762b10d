package placement

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// BenchmarkPlan plans for 30 nodes and 10,000 shards: at rest, with a node that has
// just joined, and with one that has died.
func BenchmarkPlan(b *testing.B) {
	for _, c := range []struct {
		name string
		prep func(*Load)
		on   int // nodes that hold something
	}{
		{"balanced", func(*Load) {}, 30},
		{"joined", func(*Load) {}, 29},
		{"died", func(l *Load) {
			l.Nodes[7] = NodeLoad{Heard: l.Nodes[7].Heard.Add(-time.Hour), DiskTotal: 1 << 40, DiskFree: 1 << 39}
		}, 30},
	} {
		b.Run(c.name, func(b *testing.B) {
			m, load, now := benchCluster(b, 30, c.on, 10_000)
			c.prep(load)
			rules := m.Rules()
			for b.Loop() {
				Plan(m, load, rules, now)
			}
		})
	}
}

// benchCluster makes shards of different size and load, spread over three zones.
func benchCluster(tb testing.TB, nodes, on, shards int) (*Map, *Load, time.Time) {
	now := storyNow()
	load := &Load{Since: now.Add(-24 * time.Hour), Nodes: map[shard.NodeID]NodeLoad{}, Shards: map[shard.ID]ShardLoad{}}
	p := &placementpb.Map{Format: mapFormat, Version: 1, ClusterId: 7, NextNodeId: uint64(nodes + 1), NextShardId: uint64(shards + 2),
		Settings: &placementpb.Settings{Version: 1, Settings: []*placementpb.Setting{{Name: SettingReplicationFactor, Value: "3"}}}}
	for i := range nodes {
		n := testNode(fmt.Sprintf("n%d", i+1), fmt.Sprintf("d%d", i+1))
		n.NodeId, n.Version, n.State = uint64(i+1), 1, placementpb.NodeState_ACTIVE
		n.Labels = []*placementpb.Label{{Name: "zone", Value: string(rune('a' + i%3))}}
		p.Nodes = append(p.Nodes, n)
		load.Nodes[shard.NodeID(i+1)] = NodeLoad{Heard: now, DiskTotal: 1 << 40, DiskFree: 1 << 39, Fsync: 2 * time.Millisecond}
	}
	key := func(i int) []byte { return fmt.Appendf(nil, "%06d", i) }
	for i := range shards {
		d := &shard.Descriptor{ID: shard.ID(i + 2), Epoch: 1, Generation: 1, NextReplicaID: 4, Slot: shard.Slot(i % slotCount)}
		if i > 0 {
			d.Span.Start = key(i)
		}
		if i+1 < shards {
			d.Span.End = key(i + 1)
		}
		l := ShardLoad{Heard: now, Bytes: int64(100+i%97) << 20, Writes: float64(i % 31), SpanSince: now.Add(-time.Hour), Behind: map[shard.NodeID]uint64{}}
		for r := range 3 {
			node := shard.NodeID((i+r)%on + 1)
			d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(r + 1), Node: node})
			l.Behind[node] = 0
		}
		l.Leader = d.Replicas[0].Node
		load.Shards[d.ID] = l
		p.Shards = append(p.Shards, &placementpb.Shard{Descriptor_: d.Proto(), Version: 1})
	}
	m, err := MapOf(p)
	require.NoError(tb, err)
	return m, load, now
}
