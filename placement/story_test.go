package placement

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// TestStories runs testdata/*.txt. After every command the invariants are audited,
// and a follower that is fed by updates must equal the state it follows.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "golden") || strings.Contains(path, "plan") {
			return
		}
		s := &story{state: NewState(), follower: &Map{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.run(t, d)
			require.NoError(t, s.state.Audit())
			s.follow(t)
			return out
		})
	})
}

type story struct {
	state    *State
	follower *Map
	// id and since are those of the command, of the arguments command and since.
	id, since uint64
}

func (s *story) follow(t *testing.T) {
	t.Helper()
	update := s.state.Map().UpdateSince(s.follower.Version())
	if update == nil {
		return
	}
	next, err := s.follower.Apply(update)
	require.NoError(t, err)
	s.follower = next
	require.Equal(t, s.state.Map(), s.follower)
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	m := s.state.Map()
	a := args{t, d}
	s.id, s.since = uint64(a.number("command")), uint64(a.number("since"))
	switch d.Cmd {
	case "init":
		splits, err := ParseSplits(a.text("splits"))
		require.NoError(t, err)
		c := &placementpb.InitCluster{ClusterId: uint64(a.number("cluster")), ReplicationFactor: uint32(a.number("rf")), SplitKeys: splits}
		for i, name := range a.list("nodes") {
			c.Nodes = append(c.Nodes, testNode(name, name))
			c.Nodes[i].NodeId = uint64(i + 1)
		}
		if d.HasArg("meta") {
			c.Meta = (&shard.Descriptor{Replicas: a.replicas("meta")}).Proto()
		}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: c}})
	case "add-node":
		n := testNode(a.text("name"), a.text("disk"))
		if d.HasArg("peer") {
			n.PeerAddr = a.text("peer")
		}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{Node: n}}})
	case "update-node":
		c := &placementpb.UpdateNode{NodeId: uint64(a.number("id")), Incarnation: []byte(a.text("disk"))}
		if d.HasArg("peer") {
			c.Advertised = &placementpb.Advertised{PeerAddr: a.text("peer")}
		}
		if d.HasArg("state") {
			c.State = placementpb.NodeState(placementpb.NodeState_value[strings.ToUpper(a.text("state"))])
		}
		if d.HasArg("zone") {
			c.Labels = &placementpb.Labels{Labels: []*placementpb.Label{{Name: "zone", Value: a.text("zone")}}}
		}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_UpdateNode{UpdateNode: c}})
	case "remove-node":
		c := &placementpb.RemoveNode{NodeId: uint64(a.number("id"))}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_RemoveNode{RemoveNode: c}})
	case "compact":
		c := &placementpb.RecordCompaction{Revision: int64(a.number("rev"))}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_RecordCompaction{RecordCompaction: c}})
	case "set":
		c := &placementpb.SetSetting{Name: a.text("name"), Value: a.text("value")}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_SetSetting{SetSetting: c}})
	case "update-shard":
		return s.apply(a.updateShard(m))
	case "begin":
		return s.apply(a.beginOperator())
	case "advance":
		c := &placementpb.AdvanceOperator{ShardId: uint64(a.number("id")), OperatorId: uint64(a.number("op")), Phase: placementpb.Phase(placementpb.Phase_value[a.text("to")])}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_AdvanceOperator{AdvanceOperator: c}})
	case "finish":
		c := &placementpb.FinishOperator{ShardId: uint64(a.number("id")), OperatorId: uint64(a.number("op"))}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_FinishOperator{FinishOperator: c}})
	case "cancel":
		c := &placementpb.CancelOperator{ShardId: uint64(a.number("id")), OperatorId: uint64(a.number("op"))}
		return s.apply(&placementpb.Command{Body: &placementpb.Command_CancelOperator{CancelOperator: c}})
	case "many": // changes, each by a command with an ID
		for i := range a.number("changes") {
			s.id, s.since = uint64(1<<32+i), s.state.Map().Version()
			s.apply(&placementpb.Command{Body: &placementpb.Command_SetSetting{SetSetting: &placementpb.SetSetting{Name: "n", Value: fmt.Sprint(i)}}})
		}
		return fmt.Sprintf("version=%d\n", s.state.Map().Version())
	case "restart": // from a snapshot
		restored := NewState()
		require.NoError(t, restored.Restore(s.state.Snapshot()))
		s.state = restored
		return ""
	case "map":
		return describe(m)
	case "lookup":
		return m.Lookup([]byte(a.text("key"))).ID.String() + "\n"
	case "overlapping":
		var out strings.Builder
		for _, o := range m.Overlapping(shard.Span{Start: []byte(a.text("from")), End: []byte(a.text("to"))}) {
			fmt.Fprintf(&out, "%s %s\n", o.ID, o.Span)
		}
		return out.String()
	case "splits":
		keys, err := ParseSplits(strings.TrimSuffix(d.Input, "\n"))
		if err != nil {
			return err.Error() + "\n"
		}
		return fmt.Sprintf("%q\n", keys)
	}
	d.Fatalf(t, "unknown command %q", d.Cmd)
	return ""
}

// apply goes through the log's bytes, as in a Raft group.
func (s *story) apply(c *placementpb.Command) string {
	c.CommandId, c.Since = s.id, s.since
	entry, err := EncodeCommand(c)
	if err != nil {
		return err.Error()
	}
	r := s.state.ApplyEntry(entry)
	out := fmt.Sprintf("version=%d %s", r.Version, r.Code)
	if r.NodeId != 0 {
		out += fmt.Sprintf(" node=%d", r.NodeId)
	}
	if r.Generation != 0 {
		out += fmt.Sprintf(" generation=%d", r.Generation)
	}
	if r.Compacted != 0 {
		out += fmt.Sprintf(" compacted=%d", r.Compacted)
	}
	if r.OperatorId != 0 {
		out += fmt.Sprintf(" operator=%d", r.OperatorId)
	}
	if err := ResultError(r); err != nil {
		out += "\n" + err.Error()
		if errors.Is(err, shard.ErrCompacted) {
			out += " [shard.ErrCompacted]"
		}
		if errors.Is(err, shard.ErrUnknownOutcome) {
			out += " [shard.ErrUnknownOutcome]"
		}
	}
	return out + "\n"
}

// testNode is a node whose incarnation is named like a disk one could swap.
func testNode(name, disk string) *placementpb.Node {
	return &placementpb.Node{
		Name: name, PeerAddr: name + ":2380", ClientUrls: []string{"http://" + name + ":2379"},
		AdminAddr: name + ":2378", Incarnation: []byte(disk), ServerVersion: "0.1.0",
	}
}

func describe(m *Map) string {
	var out strings.Builder
	fmt.Fprintf(&out, "version=%d cluster=%d compacted=%d next-node=%d next-shard=%d\n", m.Version(), m.ClusterID(), m.Compacted(), m.nextNode, m.nextShard)
	for _, n := range m.nodes {
		fmt.Fprintf(&out, "node %d %s %s peer=%q v%d", n.ID, n.Name, n.State, n.PeerAddr, n.Version)
		if zone, ok := n.Labels["zone"]; ok {
			fmt.Fprintf(&out, " zone=%s", zone)
		}
		out.WriteByte('\n')
	}
	for d := range m.groups() {
		describeShard(&out, d)
	}
	for _, o := range m.Operators() {
		fmt.Fprintf(&out, "operator %d %s %s shard %d from=%d to=%d with=%d key=%q %s\n", o.ID, o.Kind, o.Phase, o.Shard, o.From, o.To, o.With, o.Key, o.Why)
		if o.Child != nil {
			out.WriteString("  to be: ")
			describeShard(&out, o.Child)
		}
	}
	for _, s := range m.Settings() {
		fmt.Fprintf(&out, "setting %s=%s\n", s.Name, s.Value)
	}
	return out.String()
}

func describeShard(out *strings.Builder, d *shard.Descriptor) {
	fmt.Fprintf(out, "shard %d %s epoch=%d gen=%d slot=%d prefer=%d next-replica=%d:", d.ID, d.Span, d.Epoch, d.Generation, d.Slot, d.PreferredNode, d.NextReplicaID)
	for _, r := range d.Replicas {
		fmt.Fprintf(out, " %d@n%d", r.ID, r.Node)
		if r.Learner {
			out.WriteString("(learner)")
		}
	}
	out.WriteByte('\n')
}

// args reads the arguments of one command.
type args struct {
	t *testing.T
	d *datadriven.TestData
}

func (a args) text(key string) string { return strings.Join(a.list(key), ",") }

func (a args) list(key string) []string {
	arg, ok := a.d.Arg(key)
	if !ok {
		return nil
	}
	return arg.Vals
}

func (a args) number(key string) int {
	n := 0
	a.d.MaybeScanArgs(a.t, key, &n)
	return n
}

// replicas reads (1@1, 2@3, 3@2l): replica@node, l for learner.
func (a args) replicas(key string) []shard.Replica {
	var replicas []shard.Replica
	for _, val := range a.list(key) {
		var r shard.Replica
		val, r.Learner = strings.CutSuffix(val, "l")
		_, err := fmt.Sscanf(val, "%d@%d", (*uint64)(&r.ID), (*uint64)(&r.Node))
		require.NoError(a.t, err)
		replicas = append(replicas, r)
	}
	return replicas
}

// updateShard changes a copy of the shard as the map has it.
func (a args) updateShard(m *Map) *placementpb.Command {
	d := shard.Descriptor{ID: shard.ID(a.number("id"))}
	if current := m.Shard(d.ID); current != nil {
		d = *current
	}
	if a.d.HasArg("replicas") {
		d.Replicas = a.replicas("replicas")
	}
	if a.d.HasArg("prefer") {
		d.PreferredNode = shard.NodeID(a.number("prefer"))
	}
	if a.d.HasArg("end") {
		d.Span.End = []byte(a.text("end"))
	}
	return &placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{
		ExpectedGeneration: uint64(a.number("gen")), Descriptor_: d.Proto(), OperatorId: uint64(a.number("op")),
	}}}
}

func (a args) beginOperator() *placementpb.Command {
	return &placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{
		ExpectedGeneration: uint64(a.number("gen")), ExpectedWithGeneration: uint64(a.number("with-gen")),
		Operator: &placementpb.Operator{
			ShardId: uint64(a.number("id")), WithShardId: uint64(a.number("with")), Kind: placementpb.OperatorKind(placementpb.OperatorKind_value[a.text("kind")]),
			FromNodeId: uint64(a.number("from")), ToNodeId: uint64(a.number("to")), Key: []byte(a.text("key")), Why: a.text("why"),
		},
	}}}
}
