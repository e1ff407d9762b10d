package placement

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

type goldenCommand struct {
	name    string
	command *placementpb.Command
}

// goldenCommands holds one command of each kind; in order they make the golden map.
func goldenCommands() []goldenCommand {
	first, second := testNode("n1", "disk1"), testNode("n2", "disk2")
	first.NodeId, second.NodeId = 1, 2
	second.Labels = []*placementpb.Label{{Name: "disk", Value: "ssd"}, {Name: "zone", Value: "b"}}
	moved := &shard.Descriptor{
		ID: 2, Span: shard.Span{End: []byte("m")}, Epoch: 1, PreferredNode: 2,
		Replicas: []shard.Replica{{ID: 1, Node: 1}, {ID: 2, Node: 2}, {ID: 3, Node: 3, Learner: true}},
	}
	return []goldenCommand{
		{"init_cluster", &placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: &placementpb.InitCluster{
			ClusterId: 0x1234567890, Nodes: []*placementpb.Node{first, second}, ReplicationFactor: 3, SplitKeys: [][]byte{[]byte("m"), []byte("\xff\x00\x01")},
			Meta: (&shard.Descriptor{Replicas: []shard.Replica{{ID: 1, Node: 1}, {ID: 2, Node: 2}}}).Proto(),
		}}}},
		{"add_node", &placementpb.Command{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{Node: testNode("n3", "disk3")}}}},
		{"add_node_4", &placementpb.Command{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{Node: testNode("n4", "disk4")}}}},
		{"update_shard", &placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{
			ExpectedGeneration: 1, Descriptor_: moved.Proto(),
		}}}},
		{"update_node", &placementpb.Command{Body: &placementpb.Command_UpdateNode{UpdateNode: &placementpb.UpdateNode{
			NodeId: 3, Incarnation: []byte("disk3"), State: placementpb.NodeState_DRAINING,
			Advertised: &placementpb.Advertised{PeerAddr: "n3:1", ClientUrls: []string{"http://n3:2"}, AdminAddr: "n3:3", ServerVersion: "0.2.0"},
			Labels:     &placementpb.Labels{Labels: []*placementpb.Label{{Name: "zone", Value: "c"}}},
		}}}},
		{"remove_node", &placementpb.Command{Body: &placementpb.Command_RemoveNode{RemoveNode: &placementpb.RemoveNode{NodeId: 4}}}},
		{"record_compaction", &placementpb.Command{Body: &placementpb.Command_RecordCompaction{RecordCompaction: &placementpb.RecordCompaction{Revision: 1 << 40}}}},
		{"set_setting", &placementpb.Command{Body: &placementpb.Command_SetSetting{SetSetting: &placementpb.SetSetting{Name: "a", Value: "b"}}}},
	}
}

// operatorCommands holds one command of each kind about operators, applied after the
// golden ones. They leave one operator of each kind in the map.
func operatorCommands() []goldenCommand {
	begin := func(o *placementpb.Operator, with uint64) *placementpb.Command {
		return &placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{
			ExpectedGeneration: 1, ExpectedWithGeneration: with, Operator: o,
		}}}
	}
	split := &placementpb.Operator{ShardId: 4, Kind: placementpb.OperatorKind_SPLIT, Key: []byte("\xff\x01"), Why: "hot"}
	return []goldenCommand{
		{"begin_split", begin(split, 0)},
		{"advance_operator", &placementpb.Command{Body: &placementpb.Command_AdvanceOperator{AdvanceOperator: &placementpb.AdvanceOperator{
			ShardId: 4, OperatorId: 9, Phase: placementpb.Phase_STARTED}}}},
		{"cancel_operator", &placementpb.Command{Body: &placementpb.Command_CancelOperator{CancelOperator: &placementpb.CancelOperator{ShardId: 4, OperatorId: 9}}}},
		{"begin_split_again", begin(split, 0)},
		{"begin_move_of_meta", begin(&placementpb.Operator{ShardId: 1, Kind: placementpb.OperatorKind_MOVE, FromNodeId: 2}, 0)},
		{"update_shard_of_operator", &placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{
			ExpectedGeneration: 1, OperatorId: 13,
			Descriptor_: (&shard.Descriptor{ID: 1, Epoch: 1, Replicas: []shard.Replica{{ID: 1, Node: 1}}}).Proto(),
		}}}},
		{"finish_operator", &placementpb.Command{Body: &placementpb.Command_FinishOperator{FinishOperator: &placementpb.FinishOperator{ShardId: 1, OperatorId: 13}}}},
		{"begin_merge", &placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{
			ExpectedGeneration: 2, ExpectedWithGeneration: 1, Operator: &placementpb.Operator{ShardId: 2, WithShardId: 3, Kind: placementpb.OperatorKind_MERGE, Why: "small"},
		}}}},
	}
}

// onceCommands holds a command with an ID, applied after those.
func onceCommands() []goldenCommand {
	return []goldenCommand{{"set_setting_once", &placementpb.Command{
		CommandId: 0x1122334455667788, Since: 16,
		Body: &placementpb.Command_SetSetting{SetSetting: &placementpb.SetSetting{Name: "a", Value: "c"}},
	}}}
}

// TestGolden freezes the bytes of commands and of the snapshot they lead to. When it
// fails, a log or snapshot written before the change can no longer be read the same
// way: make a new format beside the old one and keep this file.
func TestGolden(t *testing.T) {
	want := readGolden(t, "testdata/golden/v1.txt")
	var got bytes.Buffer
	check := func(name string, data []byte) {
		got.WriteString(name + " " + hex.EncodeToString(data) + "\n")
		require.Equal(t, want[name], hex.EncodeToString(data), "bytes of %s; all so far:\n%s", name, &got)
	}
	s := NewState()
	apply := func(commands []goldenCommand) {
		for _, c := range commands {
			entry, err := EncodeCommand(c.command)
			require.NoError(t, err)
			check(c.name, entry)
			require.NoError(t, ResultError(s.ApplyEntry(entry)), c.name)
		}
	}
	apply(goldenCommands())
	check("snapshot", s.Snapshot())
	apply(operatorCommands())
	check("snapshot_with_operators", s.Snapshot())
	apply(onceCommands())
	check("snapshot_with_answers", s.Snapshot())

	old, err := hex.DecodeString(want["snapshot_with_answers"])
	require.NoError(t, err)
	restored := NewState()
	require.NoError(t, restored.Restore(old))
	require.Equal(t, s.Map(), restored.Map())
	require.Equal(t, old, restored.Snapshot())
}

func TestRestoreRefuses(t *testing.T) {
	s := &State{m: wideMap(t, 3)}
	m := s.Map()
	require.ErrorContains(t, s.Restore([]byte("no snapshot")), "restore placement map")
	require.ErrorContains(t, s.Restore(nil), "format 0")

	broken := m.Proto()
	broken.Shards[1].Descriptor_.End = []byte("zzz")
	data, err := broken.MarshalVT()
	require.NoError(t, err)
	require.ErrorContains(t, s.Restore(data), "P1")

	broken = m.Proto()
	broken.Answers = &placementpb.Answers{Answers: []*placementpb.Answer{{CommandId: 1}}}
	data, err = broken.MarshalVT()
	require.NoError(t, err)
	require.ErrorContains(t, s.Restore(data), "an answer is without")
	require.Same(t, m, s.Map(), "a refused snapshot changes nothing")
}

// readGolden reads lines of "name hex".
func readGolden(t *testing.T, path string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := map[string]string{}
	for scan := bufio.NewScanner(bytes.NewReader(data)); scan.Scan(); {
		name, value, _ := strings.Cut(scan.Text(), " ")
		lines[name] = value
	}
	return lines
}
