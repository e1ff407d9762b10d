package adminapi

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// seen is a Cluster of which all is known already.
type seen struct {
	view View
	err  error
}

func (s *seen) Look(context.Context) (*View, error) { return &s.view, s.err }

// apply makes a map by commands of the placement table.
func apply(t *testing.T, bodies ...*placementpb.Command) *placement.Map {
	t.Helper()
	s := placement.NewState()
	for _, c := range bodies {
		require.NoError(t, placement.ResultError(s.Apply(c)))
	}
	return s.Map()
}

// founded makes three nodes with the shards 2, 3 and 4, cut at g and p.
func founded() *placementpb.Command {
	init := &placementpb.InitCluster{ClusterId: 9, ReplicationFactor: 3, SplitKeys: [][]byte{[]byte("g"), []byte("p")}}
	for i, name := range []string{"n1", "n2", "n3"} {
		init.Nodes = append(init.Nodes, &placementpb.Node{NodeId: uint64(i + 1), Name: name, PeerAddr: name + ":1", Incarnation: []byte(name), ServerVersion: "v1.0." + name[1:]})
	}
	return &placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: init}}
}

func splitting() *placementpb.Command {
	return &placementpb.Command{Body: &placementpb.Command_BeginOperator{BeginOperator: &placementpb.BeginOperator{
		ExpectedGeneration: 1,
		Operator:           &placementpb.Operator{ShardId: 3, Kind: placementpb.OperatorKind_SPLIT, Key: []byte("k"), Why: "too large"},
	}}}
}

// known is a load in which shard 3 is busy, node n3 was not heard of, and of shard 4
// nobody said anything.
func known() *placement.Load {
	heard := placement.NodeLoad{Heard: now.Add(-2 * time.Second), DiskTotal: 1000, DiskFree: 600, Fsync: 3 * time.Millisecond}
	off := heard
	off.ClockOff = true
	return &placement.Load{
		Since: now.Add(-time.Hour),
		Nodes: map[shard.NodeID]placement.NodeLoad{1: heard, 2: off},
		Shards: map[shard.ID]placement.ShardLoad{
			2: {Heard: heard.Heard, Leader: 1, Writes: 5, SpanSince: now.Add(-time.Minute), Behind: map[shard.NodeID]uint64{1: 0, 2: 3}},
			3: {
				Heard: heard.Heard, Leader: 1, Bytes: 100, Keys: 10, Writes: 70, WriteBytes: 700, Reads: 7, PeakWrites: 90, PeakWriteBytes: 900,
				SpanSince: now.Add(-time.Hour), Middle: placement.SplitPoint{Key: []byte("i"), Left: 0.5},
				Behind: map[shard.NodeID]uint64{1: 0, 2: 0},
			},
		},
	}
}

func TestNodesAreTold(t *testing.T) {
	s := New(&seen{view: View{Now: now, Map: apply(t, founded()), Load: known(), Distrusted: map[shard.NodeID]string{2: "it is slow"},
		Uptimes: map[shard.NodeID]time.Duration{2: time.Minute}, Offsets: map[shard.NodeID]time.Duration{2: -time.Second}}}, nil)
	reply, err := s.Nodes(t.Context(), &adminpb.NodesRequest{})
	require.NoError(t, err)
	require.Len(t, reply.Nodes, 3)
	n1, n2, n3 := reply.Nodes[0], reply.Nodes[1], reply.Nodes[2]
	require.Equal(t, []any{"n1", "active", "n1:1", int64(2000), uint32(3), uint32(2), 75.0, int64(1000), int64(600), int64(3000), ""},
		[]any{n1.Name, n1.State, n1.PeerAddr, n1.HeardMillis, n1.Replicas, n1.Leaders, n1.Writes, n1.DiskTotal, n1.DiskFree, n1.FsyncMicros, n1.ClockDistrusted})
	require.Equal(t, []any{"v1.0.2", int64(60_000), int64(0)}, []any{n2.ServerVersion, n2.UptimeMillis, n1.UptimeMillis})
	require.Equal(t, []any{"it is slow", int64(-1_000_000), int64(0)}, []any{n2.ClockDistrusted, n2.ClockOffsetMicros, n1.ClockOffsetMicros})
	require.Zero(t, n2.Leaders)
	require.Equal(t, []any{"n3", int64(-1), uint32(3), int64(0)}, []any{n3.Name, n3.HeardMillis, n3.Replicas, n3.DiskTotal}, "V2")
}

func TestShardsAreTold(t *testing.T) {
	s := New(&seen{view: View{
		Now: now, Map: apply(t, founded(), splitting()), Load: known(), Terms: map[shard.ID]uint64{3: 7},
		Sizes:   map[shard.ID]map[shard.NodeID]int64{3: {1: 100, 2: 98}},
		Commits: map[shard.ID]Commits{3: {Half: time.Millisecond, Slow: 9 * time.Millisecond}},
	}}, nil)
	ask := func(req *adminpb.ShardsRequest) (ids []uint64, shards []*adminpb.Shard) {
		t.Helper()
		reply, err := s.Shards(t.Context(), req)
		require.NoError(t, err)
		for _, d := range reply.Shards {
			ids = append(ids, d.Id)
		}
		return ids, reply.Shards
	}
	ids, shards := ask(&adminpb.ShardsRequest{})
	require.Equal(t, []uint64{2, 3, 4}, ids)

	d := shards[1]
	require.Equal(t, []any{"g", "p", "n1", uint64(7), int64(2000), time.Hour.Milliseconds(), int64(100), int64(10)},
		[]any{string(d.Span.Start), string(d.Span.End), d.Leader, d.Term, d.HeardMillis, d.MeasuredMillis, d.Bytes, d.Versions})
	require.Equal(t, []float64{70, 700, 7, 90, 900}, []float64{d.Writes, d.WriteBytes, d.Reads, d.PeakWrites, d.PeakWriteBytes})
	require.Equal(t, "i", string(d.Middle.Key))
	require.Nil(t, d.Balance)
	require.Equal(t, []int64{1000, 9000}, []int64{d.CommitMicros, d.CommitSlowMicros})
	require.Equal(t, []any{"SPLIT", "PREPARED", "too large", "k", uint64(5)},
		[]any{d.Operator.Kind, d.Operator.Phase, d.Operator.Why, string(d.Operator.Key), d.Operator.Child})
	byNode := make(map[string][]int64)
	for _, r := range d.Replicas {
		byNode[r.Node] = []int64{r.HeardMillis, r.Lag, r.Bytes}
	}
	require.Equal(t, map[string][]int64{"n1": {2000, 0, 100}, "n2": {2000, 0, 98}, "n3": {-1, -1, 0}}, byNode)

	unknown := shards[2]
	require.Equal(t, []any{"", int64(-1), int64(-1)}, []any{unknown.Leader, unknown.HeardMillis, unknown.MeasuredMillis}, "V2")
	require.Nil(t, unknown.Operator)

	for name, c := range map[string]struct {
		req  *adminpb.ShardsRequest
		want []uint64
	}{
		"by ID":             {&adminpb.ShardsRequest{Id: 4}, []uint64{4}},
		"by a key":          {&adminpb.ShardsRequest{Span: &adminpb.Span{Start: []byte("g"), End: []byte("g\x00")}}, []uint64{3}},
		"by a span":         {&adminpb.ShardsRequest{Span: &adminpb.Span{Start: []byte("f"), End: []byte("h")}}, []uint64{2, 3}},
		"to the end":        {&adminpb.ShardsRequest{Span: &adminpb.Span{Start: []byte("p")}}, []uint64{4}},
		"by a span and ID":  {&adminpb.ShardsRequest{Id: 3, Span: &adminpb.Span{Start: []byte("f")}}, []uint64{3}},
		"of an empty span":  {&adminpb.ShardsRequest{Span: &adminpb.Span{Start: []byte("h"), End: []byte("g")}}, nil},
		"of the first keys": {&adminpb.ShardsRequest{Span: &adminpb.Span{End: []byte("a")}}, []uint64{2}},
	} {
		t.Run(name, func(t *testing.T) {
			ids, _ := ask(c.req)
			require.Equal(t, c.want, ids)
		})
	}
	_, err := s.Shards(t.Context(), &adminpb.ShardsRequest{Id: 99})
	require.Equal(t, codes.NotFound, status.Code(err))
}

// The plan that is told is the planner's, with the map's operators in flight.
func TestThePlanIsThePlanners(t *testing.T) {
	load := known()
	load.Nodes[3] = load.Nodes[1]
	large := load.Shards[3]
	large.Bytes, large.Behind[3] = 1<<30, 0
	load.Shards[3] = large
	load.Shards[4] = placement.ShardLoad{Heard: large.Heard, Leader: 3, SpanSince: large.SpanSince}
	view := View{Now: now, Map: apply(t, founded()), Load: load}
	s := New(&seen{view: view}, nil)

	reply, err := s.Plan(t.Context(), &adminpb.PlanRequest{})
	require.NoError(t, err)
	decision := placement.Plan(view.Map, load, view.Map.Rules(), now)
	require.NotEmpty(t, decision.Steps)
	require.Len(t, reply.Steps, len(decision.Steps))
	require.Len(t, reply.Reasons, len(decision.Reasons))
	i := 0
	for reply.Steps[i].Kind != "split" {
		i++
	}
	split := reply.Steps[i]
	require.Equal(t, []any{uint64(3), "i", "split", decision.Steps[i].Why, decision.Steps[i].Effect},
		[]any{split.Shard, string(split.Key), split.Rule, split.Why, split.Effect})
	require.NotEmpty(t, split.Why)

	s = New(&seen{view: View{Now: now, Map: apply(t, founded(), splitting()), Load: load}}, nil)
	reply, err = s.Plan(t.Context(), &adminpb.PlanRequest{})
	require.NoError(t, err)
	for _, step := range reply.Steps {
		require.NotEqual(t, uint64(3), step.Shard, "it is held")
	}
}

func TestWithoutAMapNothingIsTold(t *testing.T) {
	s := New(&seen{err: errors.New("no map yet")}, nil)
	_, err := s.Nodes(t.Context(), &adminpb.NodesRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	_, err = s.Shards(t.Context(), &adminpb.ShardsRequest{})
	require.ErrorContains(t, err, "no map yet")
	_, err = s.Plan(t.Context(), &adminpb.PlanRequest{})
	require.Error(t, err)
}
