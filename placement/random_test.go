package placement

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// TestRandomCommands drives a state with commands that are often wrong. A failure
// names the seed's subtest: go test ./placement -run 'TestRandomCommands/seed=7$'
func TestRandomCommands(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			newRandomRun(t, seed).run(400)
		})
	}
}

type randomRun struct {
	t     *testing.T
	rng   *rand.Rand
	state *State
	twin  *State // gets the same log, and a restart from a snapshot now and then
	// follower applies updates now and then, so that each spans many versions.
	follower *Map
	disks    int
	given    map[shard.NodeID]string // every ID ever given, and to whose disk (P2)
	// changed are commands that had an ID and changed the map, with their results (P10).
	changed []appliedCommand
}

type appliedCommand struct {
	*placementpb.Command
	result *placementpb.Result
}

func newRandomRun(t *testing.T, seed uint64) *randomRun {
	return &randomRun{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), state: NewState(), twin: NewState(), follower: &Map{},
		given: map[shard.NodeID]string{},
	}
}

func (r *randomRun) run(steps int) {
	r.step(r.initCluster())
	for range steps {
		if len(r.changed) > 0 && r.rng.IntN(10) == 0 {
			r.repeat()
		}
		c := r.command()
		if r.rng.IntN(2) == 0 {
			c.CommandId, c.Since = r.rng.Uint64(), r.state.Map().Version()
		}
		r.step(c)
		if r.rng.IntN(10) == 0 {
			r.restartTwin()
		}
		if r.rng.IntN(10) == 0 {
			r.follow()
		}
	}
	r.follow()
	require.Greater(r.t, r.state.Map().Version(), uint64(steps/10), "most commands were refused: the test tests little")
}

func (r *randomRun) step(c *placementpb.Command) {
	t := r.t
	entry, err := EncodeCommand(c)
	require.NoError(t, err)
	before, beforeBytes := r.state.Map(), r.state.Snapshot()
	beforeMap := mapBytes(t, before)

	result := r.state.ApplyEntry(entry)
	require.Equal(t, result, r.twin.ApplyEntry(entry), "P8: %v", c)

	after := r.state.Map()
	require.NoError(t, after.Audit(), "%v", c)
	require.Equal(t, after.Version(), result.Version)
	require.Equal(t, r.state.Snapshot(), r.twin.Snapshot(), "P8: %v", c)
	require.Equal(t, beforeMap, mapBytes(t, before), "a map that was handed out changed: %v", c)
	require.GreaterOrEqual(t, after.Compacted(), before.Compacted(), "P7")
	if result.Code != placementpb.Code_OK {
		require.NotEmpty(t, result.Message)
	}
	if bytes.Equal(beforeBytes, r.state.Snapshot()) {
		require.Same(t, before, after, "P6: %v", c)
	} else {
		require.Equal(t, placementpb.Code_OK, result.Code, "P6: %v", c)
		require.Equal(t, before.Version()+1, after.Version(), "P6: %v", c)
		if c.CommandId != 0 {
			r.changed = append(r.changed, appliedCommand{c, result})
		}
	}
	for _, n := range after.nodes {
		disk, known := r.given[n.ID]
		require.True(t, !known || disk == string(n.Incarnation), "P2: node ID %s was given twice", n.ID)
		r.given[n.ID] = string(n.Incarnation)
	}
	for _, d := range after.Shards() {
		if old := before.Shard(d.ID); old != nil {
			require.GreaterOrEqual(t, d.NextReplicaID, old.NextReplicaID, "P2: shard %s", d.ID)
		}
		require.Same(t, d, after.Lookup(d.Span.Start))
		require.Equal(t, []*shard.Descriptor{d}, after.Overlapping(d.Span))
	}
}

// repeat has a command in the log again that has changed the map (P10).
func (r *randomRun) repeat() {
	again := r.changed[r.rng.IntN(len(r.changed))]
	entry, err := EncodeCommand(again.Command)
	require.NoError(r.t, err)
	before := r.state.Map()
	for _, s := range []*State{r.state, r.twin} {
		require.Equal(r.t, again.result, s.ApplyEntry(entry), "P10: %v", again.Command)
	}
	require.Same(r.t, before, r.state.Map(), "P10: %v", again.Command)
}

func mapBytes(t *testing.T, m *Map) []byte {
	t.Helper()
	data, err := m.Proto().MarshalVT()
	require.NoError(t, err)
	return data
}

func (r *randomRun) restartTwin() {
	restored := NewState()
	require.NoError(r.t, restored.Restore(r.twin.Snapshot()))
	require.Equal(r.t, r.twin.Map(), restored.Map())
	r.twin = restored
}

func (r *randomRun) follow() {
	m := r.state.Map()
	update := m.UpdateSince(r.follower.Version())
	if update == nil {
		return
	}
	data, err := update.MarshalVT()
	require.NoError(r.t, err)
	received := &placementpb.Update{}
	require.NoError(r.t, received.UnmarshalVT(data))
	next, err := r.follower.Apply(received)
	require.NoError(r.t, err)
	require.Equal(r.t, m, next)
	r.follower = next
}

func (r *randomRun) initCluster() *placementpb.Command {
	c := &placementpb.InitCluster{ClusterId: 7, ReplicationFactor: uint32(1 + r.rng.IntN(5))}
	for i := range 1 + r.rng.IntN(6) {
		n := testNode(fmt.Sprint("n", i), r.newDisk())
		n.NodeId = uint64(1 + 10*i)
		c.Nodes = append(c.Nodes, n)
	}
	r.rng.Shuffle(len(c.Nodes), func(i, j int) { c.Nodes[i], c.Nodes[j] = c.Nodes[j], c.Nodes[i] })
	c.Meta = (&shard.Descriptor{Replicas: []shard.Replica{{ID: 1, Node: 1}}}).Proto()
	splits, err := ParseSplits(fmt.Sprint("uniform:", 1+r.rng.IntN(40)))
	require.NoError(r.t, err)
	c.SplitKeys = splits
	return &placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: c}}
}

func (r *randomRun) newDisk() string {
	r.disks++
	return fmt.Sprint("disk", r.disks)
}

// nodeID is an ID that exists, mostly.
func (r *randomRun) nodeID() shard.NodeID {
	nodes := r.state.Map().nodes
	if r.rng.IntN(20) == 0 {
		return shard.NodeID(r.rng.IntN(100))
	}
	return nodes[r.rng.IntN(len(nodes))].ID
}

func (r *randomRun) command() *placementpb.Command {
	switch r.rng.IntN(16) {
	case 0, 1:
		n := testNode(fmt.Sprint("n", r.rng.IntN(12)), fmt.Sprint("disk", 1+r.rng.IntN(r.disks)))
		if r.rng.IntN(2) == 0 {
			n.Incarnation = []byte(r.newDisk())
		}
		return &placementpb.Command{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{Node: n}}}
	case 2:
		return &placementpb.Command{Body: &placementpb.Command_UpdateNode{UpdateNode: r.updateNode()}}
	case 3:
		return &placementpb.Command{Body: &placementpb.Command_RemoveNode{RemoveNode: &placementpb.RemoveNode{NodeId: uint64(r.nodeID())}}}
	case 4:
		rev := int64(r.state.Map().Compacted()) + int64(r.rng.IntN(20)-5)
		return &placementpb.Command{Body: &placementpb.Command_RecordCompaction{RecordCompaction: &placementpb.RecordCompaction{Revision: rev}}}
	case 5:
		c := &placementpb.SetSetting{Name: fmt.Sprint("s", r.rng.IntN(4)), Value: []string{"", "a", "b"}[r.rng.IntN(3)]}
		return &placementpb.Command{Body: &placementpb.Command_SetSetting{SetSetting: c}}
	case 10, 11, 12, 13, 14:
		return r.operatorCommand()
	case 15:
		return r.overwritten(r.operatorCommand())
	case 6:
		return r.overwritten(&placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: r.updateShard()}})
	default:
		return &placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: r.updateShard()}}
	}
}

func (r *randomRun) updateNode() *placementpb.UpdateNode {
	c := &placementpb.UpdateNode{NodeId: uint64(r.nodeID()), State: placementpb.NodeState(r.rng.IntN(5))}
	if n := r.state.Map().Node(shard.NodeID(c.NodeId)); n != nil && r.rng.IntN(2) == 0 {
		c.Incarnation = n.Incarnation
		c.Advertised = &placementpb.Advertised{PeerAddr: fmt.Sprintf("n%d:2380", r.rng.IntN(12)), ServerVersion: "0.2.0"}
	}
	if r.rng.IntN(2) == 0 {
		c.Labels = &placementpb.Labels{Labels: []*placementpb.Label{{Name: "zone", Value: "a"}, {Name: "disk", Value: "ssd"}}}
	}
	return c
}

func (r *randomRun) updateShard() *placementpb.UpdateShard {
	m := r.state.Map()
	groups := slices.Collect(m.groups())
	d := *groups[r.rng.IntN(len(groups))]
	d.Replicas = slices.Clone(d.Replicas)
	switch i := r.rng.IntN(len(d.Replicas)); r.rng.IntN(4) {
	case 0:
		d.Replicas = slices.Delete(d.Replicas, i, i+1)
	case 1:
		d.Replicas[i].Learner = r.rng.IntN(4) == 0
	default:
		d.Replicas = append(d.Replicas, shard.Replica{ID: d.NextReplicaID, Node: r.nodeID(), Learner: r.rng.IntN(2) == 0})
	}
	if _, stays := d.ReplicaOn(d.PreferredNode); !stays || r.rng.IntN(10) == 0 {
		d.PreferredNode = 0
	}
	c := &placementpb.UpdateShard{ExpectedGeneration: d.Generation - uint64(r.rng.IntN(10)/9), Descriptor_: d.Proto()}
	if held := m.Operator(d.ID); held != nil && r.rng.IntN(4) > 0 {
		c.OperatorId = held.ID
	}
	return c
}

// operatorCommand begins an operator, or goes on with one, mostly as a controller would.
func (r *randomRun) operatorCommand() *placementpb.Command {
	m := r.state.Map()
	groups := slices.Collect(m.groups())
	i := r.rng.IntN(len(groups))
	d := groups[i]
	if len(m.operators) > 0 && r.rng.IntN(3) > 0 {
		o := m.operators[r.rng.IntN(len(m.operators))]
		return []*placementpb.Command{
			{Body: &placementpb.Command_CancelOperator{CancelOperator: &placementpb.CancelOperator{ShardId: uint64(o.Shard), OperatorId: o.ID}}},
			{Body: &placementpb.Command_FinishOperator{FinishOperator: &placementpb.FinishOperator{ShardId: uint64(o.Shard), OperatorId: o.ID}}},
			{Body: &placementpb.Command_AdvanceOperator{AdvanceOperator: &placementpb.AdvanceOperator{ShardId: uint64(o.Shard), OperatorId: o.ID, Phase: o.Phase + placementpb.Phase(r.rng.IntN(3))}}},
		}[min(2, r.rng.IntN(6))]
	}
	c := &placementpb.BeginOperator{ExpectedGeneration: d.Generation, Operator: &placementpb.Operator{
		ShardId: uint64(d.ID), Kind: placementpb.OperatorKind(r.rng.IntN(4)), FromNodeId: uint64(d.Replicas[0].Node), ToNodeId: uint64(r.nodeID()),
		Key: append(slices.Clone(d.Span.Start), byte(r.rng.IntN(256))),
	}}
	if i+1 < len(groups) {
		c.Operator.WithShardId, c.ExpectedWithGeneration = uint64(groups[i+1].ID), groups[i+1].Generation
	}
	return &placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: c}}
}

// overwritten flips bytes of a command: what decodes is a command of arbitrary content.
func (r *randomRun) overwritten(c *placementpb.Command) *placementpb.Command {
	data, err := EncodeCommand(c)
	require.NoError(r.t, err)
	for range 3 {
		data[r.rng.IntN(len(data))] = byte(r.rng.Uint32())
	}
	mangled := &placementpb.Command{}
	if mangled.UnmarshalVT(data) != nil {
		return &placementpb.Command{}
	}
	return mangled
}
