package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// threeNodes is the map of nodes 1 to 3 with the shards 2 and 3, cut at "m".
func threeNodes(t *testing.T) *placement.Map {
	t.Helper()
	return threeNodesState(t).Map()
}

func threeNodesState(t *testing.T) *placement.State {
	t.Helper()
	init := &placementpb.InitCluster{ClusterId: 9, ReplicationFactor: 3, SplitKeys: [][]byte{[]byte("m")}}
	for i, name := range []string{"n1", "n2", "n3"} {
		init.Nodes = append(init.Nodes, &placementpb.Node{NodeId: uint64(i + 1), Name: name, PeerAddr: name + ":1", Incarnation: []byte(name)})
	}
	s := placement.NewState()
	require.NoError(t, placement.ResultError(s.Apply(&placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: init}})))
	return s
}

// What nodes said, now or before, becomes one load: the leader of the latest term speaks
// for its shard, what was not said is missing, and what is old has its time.
func TestAssemblingALoad(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	before := now.Add(-time.Minute)
	m := threeNodes(t)
	load := assemble(m, collected{heard: map[shard.NodeID]heardLoad{
		1: {&routerpb.LoadReply{DiskTotal: 100, DiskFree: 40, FsyncMicros: 1500, Replicas: []*routerpb.ReplicaLoad{
			{
				Shard: 2, Replica: 1, Leader: 1, Term: 5, Applied: 1000, Bytes: 7, Versions: 8, Reads: 1,
				Measures: true, MeasuredMillis: 30_000, Writes: 10, WriteBytes: 100, PeakWrites: 20, PeakWriteBytes: 200,
				Middle: &routerpb.SplitPoint{Key: []byte("c"), Left: 0.4}, Balance: &routerpb.SplitPoint{Key: []byte("d"), Left: 0.6},
			},
			{Shard: 3, Replica: 1, Leader: 2, Term: 4, Applied: 50, Reads: 2},
			{Shard: 8, Replica: 1, Leader: 1, Term: 4, Measures: true}, // of no map
		}}, now},
		2: {&routerpb.LoadReply{ClockDistrusted: "it is slow", Replicas: []*routerpb.ReplicaLoad{
			{Shard: 2, Replica: 2, Leader: 2, Term: 4, Applied: 900, Measures: true, Writes: 99}, // led before
			{Shard: 3, Replica: 2, Leader: 3, Term: 4, Applied: 60},
		}}, before},
		7: {&routerpb.LoadReply{}, now}, // of no map
	}, since: before})

	require.Equal(t, &placement.Load{
		Since: before,
		Nodes: map[shard.NodeID]placement.NodeLoad{
			1: {Heard: now, DiskTotal: 100, DiskFree: 40, Fsync: 1500 * time.Microsecond},
			2: {Heard: before, ClockOff: true},
		},
		Shards: map[shard.ID]placement.ShardLoad{2: {
			Heard: now, Leader: 1, Bytes: 7, Keys: 8, Reads: 1,
			Writes: 10, WriteBytes: 100, PeakWrites: 20, PeakWriteBytes: 200,
			Middle: placement.SplitPoint{Key: []byte("c"), Left: 0.4}, Balance: placement.SplitPoint{Key: []byte("d"), Left: 0.6},
			SpanSince: now.Add(-30 * time.Second), Behind: map[shard.NodeID]uint64{1: 0, 2: 100},
		}},
	}, load, "nobody leads shard 3 by its own account, and node 3 said nothing")

	// Node 3 says that it leads shard 3. A follower that was asked later is not behind.
	load = assemble(m, collected{heard: map[shard.NodeID]heardLoad{
		1: {&routerpb.LoadReply{Replicas: []*routerpb.ReplicaLoad{{Shard: 3, Replica: 1, Leader: 3, Term: 4, Applied: 70, Reads: 2}}}, now},
		3: {&routerpb.LoadReply{Replicas: []*routerpb.ReplicaLoad{{Shard: 3, Replica: 3, Leader: 3, Term: 4, Applied: 60, Measures: true, Reads: 3}}}, before},
	}, since: before})
	require.Equal(t, placement.ShardLoad{
		Heard: before, Leader: 3, Reads: 5, SpanSince: before, Behind: map[shard.NodeID]uint64{1: 0, 3: 0},
	}, load.Shards[3])

	// Node 2 has just come to lead it, and has measured nothing yet.
	load = assemble(m, collected{heard: map[shard.NodeID]heardLoad{
		2: {&routerpb.LoadReply{Replicas: []*routerpb.ReplicaLoad{{Shard: 3, Replica: 2, Leader: 2, Term: 5, Applied: 60, Bytes: 7}}}, now},
		3: {&routerpb.LoadReply{Replicas: []*routerpb.ReplicaLoad{{Shard: 3, Replica: 3, Leader: 3, Term: 4, Applied: 60, Measures: true, Writes: 3}}}, before},
	}, since: before})
	require.Equal(t, placement.ShardLoad{
		Heard: now, Leader: 2, Bytes: 7, Behind: map[shard.NodeID]uint64{2: 0, 3: 0},
	}, load.Shards[3])
}

// A replica that serves nothing is told of as that, and not as one that could lead. What a
// node said of the one it had before says nothing about the one it has now.
func TestAssemblingUnfitReplicas(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := threeNodes(t)
	of := func(node shard.NodeID) uint64 {
		r, _ := m.Shard(3).ReplicaOn(node)
		return uint64(r.ID)
	}
	told := func(replica uint64, unfit string) heardLoad {
		r := &routerpb.ReplicaLoad{Shard: 3, Replica: replica, Leader: of(1), Measures: true, Applied: 60, Unfit: unfit}
		return heardLoad{&routerpb.LoadReply{Replicas: []*routerpb.ReplicaLoad{r}}, now}
	}
	load := assemble(m, collected{heard: map[shard.NodeID]heardLoad{1: told(of(1), ""), 2: told(of(2), "damaged"), 3: told(9, "damaged")}, since: now})
	require.Equal(t, map[shard.NodeID]string{2: "damaged"}, load.Shards[3].Unfit)
	require.Equal(t, map[shard.NodeID]uint64{1: 0}, load.Shards[3].Behind)
}

// Silence counts from when somebody began to listen without a long pause.
func TestSilenceCountsOnlyWhileSomebodyListens(t *testing.T) {
	l := &loads{}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const patience = 30 * time.Second
	require.Equal(t, start, l.listens(start, patience))
	require.Equal(t, start, l.listens(start.Add(patience), patience))
	require.Equal(t, start, l.listens(start.Add(2*patience), patience))
	later := start.Add(time.Hour)
	require.Equal(t, later, l.listens(later, patience))
}
