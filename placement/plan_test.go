package placement

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// TestPlans runs testdata/plan/*.txt. Every plan is made twice and must come out the
// same, and keeps the rules that checkSteps looks at.
func TestPlans(t *testing.T) {
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		s := newPlanStory()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "cluster":
				for line := range strings.Lines(d.Input) {
					s.line(t, strings.TrimSuffix(line, "\n"))
				}
				return s.plan(t)
			case "done":
				return s.done(t)
			default:
				t.Fatalf("no such command: %s", d.Cmd)
				return ""
			}
		})
	})
}

// planStory is a cluster as the lines of a story describe it.
type planStory struct {
	now      time.Time
	nodes    []*Node
	shards   []*shard.Descriptor // in key order
	load     Load
	begun    []*placementpb.Operator // operators in the map
	settings map[string]string
	last     *Decision
}

func newPlanStory() *planStory {
	now := storyNow()
	return &planStory{
		now:      now,
		load:     Load{Since: now.Add(-24 * time.Hour), Nodes: map[shard.NodeID]NodeLoad{}, Shards: map[shard.ID]ShardLoad{}},
		settings: map[string]string{SettingReplicationFactor: "3"},
	}
}

// storyNow is when all plans in tests are made.
func storyNow() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) }

// line reads one line of a story. Nodes and shards that are there already keep what
// the line does not name.
func (s *planStory) line(t *testing.T, line string) {
	words := strings.Fields(line)
	switch words[0] {
	case "node":
		s.node(t, words[1], words[2:])
	case "shard":
		s.shard(t, words[1], words[2:])
	case "set":
		s.settings[words[1]] = strings.Join(words[2:], " ")
	case "collecting": // since when reports are collected
		s.load.Since = s.now.Add(-duration(t, words[1]))
	case "flight":
		s.load.InFlight = append(s.load.InFlight, s.step(t, words[1:]))
	case "landed":
		s.load.InFlight, s.begun = nil, nil
	case "operator":
		s.begun = append(s.begun, s.operator(t, words[1:]))
	default:
		t.Fatalf("no such line: %s", line)
	}
}

const storyDisk = 100 << 30

func (s *planStory) node(t *testing.T, name string, attributes []string) {
	id := shard.NodeID(number(t, strings.TrimPrefix(name, "n")))
	i, found := slices.BinarySearchFunc(s.nodes, id, func(n *Node, id shard.NodeID) int { return cmp.Compare(n.ID, id) })
	if !found {
		s.nodes = slices.Insert(s.nodes, i, &Node{
			ID: id, Name: name, PeerAddr: name + ":1", Incarnation: []byte(name), State: Active, Version: 1, Labels: map[string]string{},
		})
		s.load.Nodes[id] = NodeLoad{Heard: s.now, DiskTotal: storyDisk, DiskFree: storyDisk, Fsync: 2 * time.Millisecond}
	}
	n, l := s.nodes[i], s.load.Nodes[id]
	for _, attribute := range attributes {
		switch name, value, _ := strings.Cut(attribute, "="); name {
		case "state":
			n.State = NodeState(placementpb.NodeState_value[strings.ToUpper(value)])
		case "silent":
			l.Heard = s.now.Add(-duration(t, value))
			if value == "always" {
				l = NodeLoad{}
			}
		case "free": // per cent
			l.DiskFree = l.DiskTotal * int64(number(t, value)) / 100
		case "disk":
			require.NoError(t, setBytes(&l.DiskTotal, value, 0, 1<<50))
			l.DiskFree = l.DiskTotal
		case "fsync":
			l.Fsync = duration(t, value)
		case "clock":
			l.ClockOff = value == "off"
		default:
			n.Labels[name] = value
		}
	}
	s.load.Nodes[id] = l
}

func (s *planStory) shard(t *testing.T, word string, attributes []string) {
	id := shard.ID(number(t, word))
	i := slices.IndexFunc(s.shards, func(d *shard.Descriptor) bool { return d.ID == id })
	if i < 0 {
		i = len(s.shards)
		s.shards = append(s.shards, &shard.Descriptor{ID: id, Epoch: 1, Generation: 1, NextReplicaID: 100, Parent: 2})
	}
	d := s.shards[i]
	l, known := s.load.Shards[id]
	if !known {
		l = ShardLoad{Heard: s.now, SpanSince: s.now.Add(-24 * time.Hour), Behind: map[shard.NodeID]uint64{}}
	}
	for _, attribute := range attributes {
		switch name, value, _ := strings.Cut(attribute, "="); name {
		case "from":
			d.Span.Start = []byte(value)
		case "epoch":
			d.Epoch = uint64(number(t, value))
		case "initial":
			d.Parent = 0
		case "on":
			d.Replicas = nil
			for i, place := range strings.Split(value, ",") {
				node := s.id(t, strings.Trim(place, "+"))
				if i == 0 {
					l.Leader = node
				}
				d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: node, Learner: strings.HasSuffix(place, "+")})
				l.Behind[node] = 0
			}
		case "leader":
			l.Leader = s.id(t, value)
		case "bytes":
			require.NoError(t, setBytes(&l.Bytes, value, 0, 1<<50))
		case "writes":
			l.Writes = float64(number(t, value))
			l.PeakWrites = max(l.PeakWrites, l.Writes)
		case "peak":
			l.PeakWrites = float64(number(t, value))
		case "middle":
			l.Middle = splitPoint(t, value)
		case "balance":
			l.Balance = splitPoint(t, value)
		case "age":
			l.SpanSince = time.Time{}
			if value != "unknown" {
				l.SpanSince = s.now.Add(-duration(t, value))
			}
		case "silent":
			l.Heard = s.now.Add(-duration(t, value))
			if value == "always" {
				l = ShardLoad{Behind: map[shard.NodeID]uint64{}}
			}
		case "unfit":
			node, why, _ := strings.Cut(value, ":")
			l.Unfit = map[shard.NodeID]string{s.id(t, node): why}
			delete(l.Behind, s.id(t, node))
		case "behind":
			node, entries, _ := strings.Cut(value, ":")
			l.Behind[s.id(t, node)] = uint64(number(t, entries))
		default:
			t.Fatalf("shard %s has no %s", word, name)
		}
	}
	s.load.Shards[id] = l
}

// step reads "move 7 n1 n4", "split 7 key" and the like.
func (s *planStory) step(t *testing.T, words []string) Step {
	step := Step{Shard: shard.ID(number(t, words[1]))}
	for kind := AddReplica; kind <= Merge; kind++ {
		if kind.String() == words[0] {
			step.Kind = kind
		}
	}
	switch step.Kind {
	case AddReplica:
		step.To = s.id(t, words[2])
	case RemoveReplica:
		step.From = s.id(t, words[2])
	case MoveReplica, TransferLeader:
		step.From, step.To = s.id(t, words[2]), s.id(t, words[3])
	case Split:
		step.Key = []byte(words[2])
	case Merge:
		step.With = shard.ID(number(t, words[2]))
	default:
		t.Fatalf("no such step: %q", words)
	}
	return step
}

// operator reads a step that the map holds as an operator.
func (s *planStory) operator(t *testing.T, words []string) *placementpb.Operator {
	step := s.step(t, words)
	o := &placementpb.Operator{OperatorId: 1, Kind: placementpb.OperatorKind_MOVE, Phase: placementpb.Phase_PREPARED,
		ShardId: uint64(step.Shard), FromNodeId: uint64(step.From), ToNodeId: uint64(step.To), WithShardId: uint64(step.With)}
	if step.Kind == Merge {
		o.Kind = placementpb.OperatorKind_MERGE
	}
	return o
}

func (s *planStory) id(t *testing.T, name string) shard.NodeID {
	return shard.NodeID(number(t, strings.TrimPrefix(name, "n")))
}

func number(t *testing.T, word string) int {
	n, err := strconv.Atoi(word)
	require.NoError(t, err)
	return n
}

func duration(t *testing.T, word string) time.Duration {
	if word == "always" {
		return 0
	}
	d, err := time.ParseDuration(word)
	require.NoError(t, err)
	return d
}

// splitPoint reads "key:40", the per cent that the key leaves to its left.
func splitPoint(t *testing.T, word string) SplitPoint {
	key, left, _ := strings.Cut(word, ":")
	return SplitPoint{Key: []byte(key), Left: float64(number(t, left)) / 100}
}

// placementMap makes the map of the story, audited.
func (s *planStory) placementMap(t *testing.T) *Map {
	p := &placementpb.Map{Format: mapFormat, Version: 1, ClusterId: 7, NextNodeId: 1000, NextShardId: 100_000,
		Settings: &placementpb.Settings{Version: 1}}
	for _, n := range s.nodes {
		p.Nodes = append(p.Nodes, n.Proto())
	}
	for i, d := range s.shards {
		d := *d
		if d.ID == shard.MetaID { // first in a story, if it is there
			p.Meta = &placementpb.Shard{Descriptor_: d.Proto(), Version: 1}
			continue
		}
		d.Slot = shard.Slot(i % slotCount)
		if i+1 < len(s.shards) {
			d.Span.End = s.shards[i+1].Span.Start
		}
		p.Shards = append(p.Shards, &placementpb.Shard{Descriptor_: d.Proto(), Version: 1})
	}
	for name, value := range s.settings {
		require.NoError(t, checkSetting(name, value))
		p.Settings.Settings = append(p.Settings.Settings, &placementpb.Setting{Name: name, Value: value})
	}
	slices.SortFunc(p.Settings.Settings, func(a, b *placementpb.Setting) int { return cmp.Compare(a.Name, b.Name) })
	if len(s.begun) > 0 {
		p.Operators = &placementpb.Operators{Operators: s.begun, Version: 1}
	}
	m, err := MapOf(p)
	require.NoError(t, err)
	return m
}

func (s *planStory) plan(t *testing.T) string {
	m := s.placementMap(t)
	s.last = Plan(m, &s.load, m.Rules(), s.now)
	require.Equal(t, s.last, Plan(m, &s.load, m.Rules(), s.now))
	checkSteps(t, m, &s.load, s.last)
	return s.last.text(m)
}

// done carries out what the last plan says, and plans again.
func (s *planStory) done(t *testing.T) string {
	for _, step := range s.last.Steps {
		s.carryOut(t, step)
	}
	return s.plan(t)
}

func (s *planStory) carryOut(t *testing.T, step Step) {
	i := slices.IndexFunc(s.shards, func(d *shard.Descriptor) bool { return d.ID == step.Shard })
	d, l := s.shards[i], s.load.Shards[step.Shard]
	switch step.Kind {
	case AddReplica, RemoveReplica, MoveReplica:
		d.Replicas = slices.DeleteFunc(d.Replicas, func(r shard.Replica) bool { return r.Node == step.From || r.Node == step.To })
		if step.To != 0 {
			d.Replicas = append(d.Replicas, shard.Replica{ID: d.NextReplicaID, Node: step.To})
			d.NextReplicaID++
			l.Behind[step.To] = 0
		}
		if step.Kind == MoveReplica && l.Leader == step.From {
			l.Leader = step.To
		}
	case TransferLeader:
		l.Leader = step.To
	case Split:
		right, rightLoad := *d, l
		right.ID, right.Span.Start = shard.ID(1000+int(step.Shard)), step.Key
		right.Replicas = slices.Clone(d.Replicas)
		d.Epoch, right.Epoch = step.Epoch, step.Epoch
		left := l.Balance.Left
		if !bytes.Equal(step.Key, l.Balance.Key) {
			left = l.Middle.Left
		}
		l.Bytes, rightLoad.Bytes = int64(left*float64(l.Bytes)), int64((1-left)*float64(l.Bytes))
		l.Writes, rightLoad.Writes = left*l.Writes, (1-left)*l.Writes
		l.PeakWrites, rightLoad.PeakWrites = l.Writes, rightLoad.Writes
		l.SpanSince, rightLoad.SpanSince = s.now, s.now
		s.shards = slices.Insert(s.shards, i+1, &right)
		s.load.Shards[right.ID] = rightLoad
	case Merge:
		other := s.load.Shards[step.With]
		l.Bytes, l.Writes, l.PeakWrites, l.SpanSince = l.Bytes+other.Bytes, l.Writes+other.Writes, l.PeakWrites+other.PeakWrites, s.now
		d.Epoch = step.Epoch
		s.shards = slices.Delete(s.shards, i+1, i+2)
	default:
		t.Fatalf("step of %s", step.Kind)
	}
	s.load.Shards[step.Shard] = l
}

// text writes a decision as stories show it.
func (d *Decision) text(m *Map) string {
	name := func(id shard.NodeID) string { return m.Node(id).Name }
	var out strings.Builder
	for _, s := range d.Steps {
		fmt.Fprintf(&out, "%s: %s shard %s", s.Rule, s.Kind, s.Shard)
		if s.From != 0 {
			fmt.Fprintf(&out, " from %s", name(s.From))
		}
		if s.To != 0 {
			fmt.Fprintf(&out, " to %s", name(s.To))
		}
		if s.With != 0 {
			fmt.Fprintf(&out, " with %s", s.With)
		}
		if len(s.Key) > 0 {
			fmt.Fprintf(&out, " at %q", s.Key)
		}
		if s.Epoch != 0 {
			fmt.Fprintf(&out, ", epoch %d", s.Epoch)
		}
		fmt.Fprintf(&out, "\n  because %s\n  then %s\n", s.Why, s.Effect)
	}
	for _, r := range d.Reasons {
		fmt.Fprintf(&out, "- %s\n", r)
	}
	return out.String()
}

// checkSteps checks what holds for every plan.
func checkSteps(t *testing.T, m *Map, load *Load, d *Decision) {
	t.Helper()
	rules := m.Rules()
	taken := map[shard.ID]bool{}
	for _, s := range load.InFlight {
		taken[s.Shard], taken[s.With] = true, true
	}
	for _, o := range m.Operators() {
		taken[o.Shard], taken[o.With] = true, true
	}
	moves, transfers, copies := 0, 0, map[shard.NodeID]int{}
	for _, s := range load.InFlight {
		if s.Kind == AddReplica || s.Kind == MoveReplica {
			moves++
			copies[s.To]++
			copies[load.Shards[s.Shard].Leader]++
		}
	}
	for _, s := range d.Steps {
		require.False(t, taken[s.Shard], "L1: shard %s has two steps", s.Shard)
		require.False(t, s.With != 0 && taken[s.With], "L1: shard %s has two steps", s.With)
		taken[s.Shard], taken[s.With] = true, s.With != 0
		require.NotEmpty(t, s.Why)
		require.NotEmpty(t, s.Effect)
		require.NotContains(t, rules.Locked, s.Shard)
		g := m.Shard(s.Shard)
		require.NotNil(t, g)
		if s.To != 0 {
			require.Equal(t, Active, m.Node(s.To).State, "%+v", s)
		}
		switch s.Kind {
		case AddReplica, MoveReplica:
			moves++
			for _, node := range []shard.NodeID{s.To, load.Shards[s.Shard].Leader} {
				copies[node]++
				require.LessOrEqual(t, copies[node], rules.MovesPerNode, "L6: node %s", node)
			}
			if r, has := g.ReplicaOn(s.To); has {
				require.True(t, r.Learner, "%+v", s)
			}
			_, has := g.ReplicaOn(s.From)
			require.True(t, has || s.Kind == AddReplica, "%+v", s)
		case RemoveReplica:
			left, leftUp := 0, 0
			for _, r := range g.Replicas {
				if !r.Learner && r.Node != s.From {
					left++
					if heard := load.Nodes[r.Node].Heard; storyNow().Sub(heard) <= rules.StaleAfter {
						leftUp++
					}
				}
			}
			require.Greater(t, 2*leftUp, left, "L2: %+v", s)
			require.NotEqual(t, load.Shards[s.Shard].Leader, s.From, "%+v", s)
		case TransferLeader:
			transfers++
			r, has := g.ReplicaOn(s.To)
			require.True(t, has && !r.Learner, "%+v", s)
			require.Equal(t, load.Shards[s.Shard].Leader, s.From)
		case Split:
			require.True(t, g.Span.Contains(s.Key) && !bytes.Equal(s.Key, g.Span.Start), "%+v", s)
			require.Equal(t, (&Operator{Key: s.Key}).Rest(g).Epoch, s.Epoch, "%+v", s)
		case Merge:
			require.Equal(t, g.Span.End, m.Shard(s.With).Span.Start, "%+v", s)
			require.NoError(t, Together(g, m.Shard(s.With)))
			into, right := m.Merging(&Operator{Shard: s.Shard, With: s.With})
			require.Equal(t, []any{into.Epoch, right.Span.Start}, []any{s.Epoch, s.Key})
		}
	}
	require.LessOrEqual(t, moves, max(rules.MovesMax, len(load.InFlight)), "L6")
	require.LessOrEqual(t, transfers, rules.TransfersMax, "L6")
	for _, r := range d.Reasons {
		require.NotEmpty(t, r.Text)
	}
}
