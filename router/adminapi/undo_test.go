package adminapi

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// undoing is a cluster of which all nodes are well and the balancer is paused.
type undoing struct {
	*changed
	t *testing.T
	s *Server
}

func newUndoing(t *testing.T) *undoing {
	s, c := withFourth(t)
	well := placement.NodeLoad{Heard: now, DiskTotal: 1 << 40, DiskFree: 1 << 39}
	c.nodes = map[shard.NodeID]placement.NodeLoad{1: well, 2: well, 3: well}
	u := &undoing{c, t, s}
	u.apply(placement.Set(placement.SettingRebalance, "off"))
	return u
}

func (u *undoing) apply(c *placementpb.Command) {
	u.t.Helper()
	require.NoError(u.t, placement.ResultError(u.Apply(c)))
}

// plan has steps applied, each of which begins by the command given with it.
func (u *undoing) plan(begun map[*placement.Step]*placementpb.Command) {
	u.t.Helper()
	u.steps = nil
	for s, c := range begun {
		u.steps = append(u.steps, *s)
		u.apply(c)
	}
	slices.SortFunc(u.steps, func(a, b placement.Step) int { return int(a.Shard) - int(b.Shard) })
	reply, err := u.s.Rebalance(u.t.Context(), &adminpb.RebalanceRequest{})
	require.NoError(u.t, err)
	require.Len(u.t, reply.Begun, len(begun))
	require.Equal(u.t, u.Map().Version(), reply.Version)
}

// carryOut ends all operators as if the shards had done their part.
func (u *undoing) carryOut() {
	u.t.Helper()
	for _, o := range u.Map().Operators() {
		id, operator := uint64(o.Shard), o.ID
		switch o.Kind {
		case placementpb.OperatorKind_MOVE:
			u.replace(u.Map().Shard(o.Shard), o.From, o.To, operator)
		default:
			for phase := o.Phase + 1; ; phase++ {
				result := u.Apply(&placementpb.Command{Body: &placementpb.Command_AdvanceOperator{
					AdvanceOperator: &placementpb.AdvanceOperator{ShardId: id, OperatorId: operator, Phase: phase},
				}})
				if result.Code == placementpb.Code_INVALID_ARGUMENT { // there are no more
					break
				}
				require.NoError(u.t, placement.ResultError(result))
			}
		}
		u.apply(&placementpb.Command{Body: &placementpb.Command_FinishOperator{
			FinishOperator: &placementpb.FinishOperator{ShardId: id, OperatorId: operator},
		}})
	}
}

// replace puts a replica on a node in place of the one on another; either may be 0.
func (u *undoing) replace(d *shard.Descriptor, from, to shard.NodeID, operator uint64) {
	u.t.Helper()
	next := *d
	next.Replicas = slices.DeleteFunc(slices.Clone(d.Replicas), func(r shard.Replica) bool { return r.Node == from })
	if to != 0 {
		next.Replicas = append(next.Replicas, shard.Replica{ID: d.NextReplicaID, Node: to})
	}
	if next.PreferredNode == from {
		next.PreferredNode = 0
	}
	u.apply(&placementpb.Command{Body: &placementpb.Command_UpdateShard{
		UpdateShard: &placementpb.UpdateShard{ExpectedGeneration: d.Generation, Descriptor_: next.Proto(), OperatorId: operator},
	}})
}

// placing are steps that change where replicas and leaders are.
func (u *undoing) placing() map[*placement.Step]*placementpb.Command {
	return map[*placement.Step]*placementpb.Command{
		{Kind: placement.TransferLeader, Shard: 2, From: 1, To: 2}: placement.Prefer(u.Map().Shard(2), 2),
		{Kind: placement.MoveReplica, Shard: 3, From: 2, To: 4}:    placement.BeginMove(u.Map().Shard(3), 2, 4, "a test"),
		{Kind: placement.AddReplica, Shard: 4, To: 4}:              placement.BeginMove(u.Map().Shard(4), 0, 4, "a test"),
	}
}

// cut is a step that splits a shard.
func (u *undoing) cut(id shard.ID, key string) map[*placement.Step]*placementpb.Command {
	d := u.Map().Shard(id)
	return map[*placement.Step]*placementpb.Command{
		{Kind: placement.Split, Shard: id, Key: []byte(key), Epoch: d.Epoch + 1}: placement.BeginSplit(d, []byte(key), "a test"),
	}
}

// join is a step that merges a shard and its right neighbour.
func (u *undoing) join(id shard.ID) map[*placement.Step]*placementpb.Command {
	d := u.Map().Shard(id)
	right := u.Map().RightOf(d)
	return map[*placement.Step]*placementpb.Command{
		{Kind: placement.Merge, Shard: id, With: right.ID, Key: right.Span.Start, Epoch: max(d.Epoch, right.Epoch) + 1}: placement.BeginMerge(d, right, "a test"),
	}
}

// undo is asked for: first it is only told what would be done, which changes nothing and is the
// same as what is done then.
func (u *undoing) undo() (begun, left []string) {
	u.t.Helper()
	was := u.Map()
	would, err := u.s.Undo(u.t.Context(), &adminpb.UndoRequest{DryRun: true})
	require.NoError(u.t, err)
	require.Same(u.t, was, u.Map())
	done, err := u.s.Undo(u.t.Context(), &adminpb.UndoRequest{})
	require.NoError(u.t, err)
	require.Equal(u.t, undone(would), undone(done))
	if len(done.Begun) > 0 {
		require.Equal(u.t, u.Map().Version(), done.Version)
	}
	for _, step := range done.Begun {
		begun = append(begun, stepLine(step))
	}
	for _, r := range done.Left {
		left = append(left, fmt.Sprint(r.Shards, " ", r.Text))
	}
	return begun, left
}

func undone(r *adminpb.UndoReply) (lines []string) {
	for _, step := range r.Begun {
		lines = append(lines, stepLine(step))
	}
	for _, reason := range r.Left {
		lines = append(lines, reason.Text)
	}
	return lines
}

func stepLine(s *adminpb.Step) string {
	return fmt.Sprintf("%s %d %s>%s %s %d", s.Kind, s.Shard, s.From, s.To, s.Key, s.With)
}

// nothing requires that there is nothing to undo.
func (u *undoing) nothing() {
	u.t.Helper()
	was := u.Map()
	begun, left := u.undo()
	require.Empty(u.t, begun)
	require.Empty(u.t, left)
	require.Same(u.t, was, u.Map())
}

// spans are the shards' first keys with their nodes.
func (u *undoing) spans() (out []string) {
	for _, d := range u.Map().Shards() {
		var on []shard.NodeID
		for _, r := range d.Replicas {
			on = append(on, r.Node)
		}
		slices.Sort(on)
		out = append(out, fmt.Sprintf("%s %v", d.Span.Start, on))
	}
	return out
}

// What was applied is undone step by step, by any node: what others have overtaken is left,
// and says why.
func TestUndo(t *testing.T) {
	u := newUndoing(t)
	u.nothing()
	u.plan(u.placing())
	u.carryOut()

	u.apply(placement.Set(placement.SettingRebalance, "on"))
	was := u.Map()
	_, err := u.s.Undo(t.Context(), &adminpb.UndoRequest{})
	require.ErrorContains(t, err, "the balancer is on")
	require.Same(t, was, u.Map())
	u.apply(placement.Set(placement.SettingRebalance, "off"))

	begun, left := u.undo()
	require.Equal(t, []string{"remove 4 n4>  0", "move 3 n4>n2  0", "lead 2 n2>n1  0"}, begun)
	require.Empty(t, left)
	u.nothing() // while it is under way
	u.carryOut()
	require.Equal(t, []string{" [1 2 3]", "g [1 2 3]", "p [1 2 3]"}, u.spans())
	require.EqualValues(t, 1, u.Map().Shard(2).PreferredNode)
	u.nothing()

	u.plan(u.placing())
	u.carryOut()
	u.replace(u.Map().Shard(3), 4, 2, 0)           // somebody moves it back
	u.apply(placement.Prefer(u.Map().Shard(2), 3)) // leads it elsewhere
	u.replace(u.Map().Shard(4), 1, 0, 0)           // and takes another replica
	begun, left = u.undo()
	require.Empty(t, begun)
	require.Equal(t, []string{
		"[4] without the replica on n4 it would have fewer than 3", "[3] it has no replica on n4",
		"[2] n2 does not lead it any more, or n1 has no replica that could",
	}, left)
	u.nothing()

	u.apply(placement.Set(lastApplied, "move x"))
	_, err = u.s.Undo(t.Context(), &adminpb.UndoRequest{})
	require.ErrorContains(t, err, "setting last-applied")
	u.apply(placement.Set(lastApplied, "move 9 1 2,more 7"))
	begun, left = u.undo()
	require.Empty(t, begun)
	require.Equal(t, []string{"[] 7 more steps were too many to be written down", "[9] it is not there any more"}, left)
}

// A split is undone by a merge, and a merge by a split where the boundary was. Both end where
// all began, but for the ID of the right shard.
func TestUndoOfSplitsAndMerges(t *testing.T) {
	u := newUndoing(t)
	first := u.spans()
	u.plan(u.cut(3, "k, %"))
	u.carryOut()
	require.Len(t, u.spans(), 4)
	begun, left := u.undo()
	require.Empty(t, left)
	require.Equal(t, []string{"merge 3 > k, % 5"}, begun)
	u.nothing()
	u.carryOut()
	require.Equal(t, first, u.spans())
	u.nothing()

	u.plan(u.join(3))
	u.carryOut()
	require.Equal(t, []string{" [1 2 3]", "g [1 2 3]"}, u.spans())
	begun, left = u.undo()
	require.Empty(t, left)
	require.Equal(t, []string{"split 3 > p 0"}, begun)
	u.carryOut()
	require.Equal(t, first, u.spans())
	require.Contains(t, u.Map().Rules().Pinned, "p", "it is not merged again as soon as the balancer goes on")
	u.nothing()
}

// Halves and merged shards that are others by now are left, for a reason that says what
// happened.
func TestUndoOfWhatWasReshapedSince(t *testing.T) {
	split := func(u *undoing) { u.plan(u.cut(3, "k")) }
	merge := func(u *undoing) { u.plan(u.join(3)) }
	for name, c := range map[string]struct {
		apply, since func(*undoing)
		why          string
	}{
		"the split was given up": {split, func(u *undoing) { u.apply(placement.CancelOf(3, u.Map().Operator(3).ID)) }, "[3] its split was given up"},
		"the left half was split": {split, func(u *undoing) {
			u.carryOut()
			u.apply(placement.BeginSplit(u.Map().Shard(3), []byte("h"), "a test"))
			u.carryOut()
		}, `[3] it was split at "k", and one of the halves was split or merged again since`},
		"the right half was split": {split, func(u *undoing) {
			u.carryOut()
			u.apply(placement.BeginSplit(u.Map().Shard(5), []byte("m"), "a test"))
			u.carryOut()
		}, `[3] it was split at "k", and one of the halves was split or merged again since`},
		"the right half was merged": {split, func(u *undoing) {
			u.carryOut()
			u.apply(placement.BeginMerge(u.Map().Shard(5), u.Map().Shard(4), "a test"))
			u.carryOut()
		}, `[3] it was split at "k", and one of the halves was split or merged again since`},
		"both were split as often": {split, func(u *undoing) {
			u.carryOut()
			u.apply(placement.BeginSplit(u.Map().Shard(3), []byte("h"), "a test"))
			u.apply(placement.BeginSplit(u.Map().Shard(5), []byte("m"), "a test"))
			u.carryOut()
			u.apply(placement.BeginMerge(u.Map().Shard(3), u.Map().RightOf(u.Map().Shard(3)), "a test"))
			u.carryOut()
		}, `[3] it was split at "k", and one of the halves was split or merged again since`},
		"it was merged already": {split, func(u *undoing) {
			u.carryOut()
			u.apply(placement.BeginMerge(u.Map().Shard(3), u.Map().Shard(5), "a test"))
			u.carryOut()
		}, `[3] it was split at "k", and one of the halves was split or merged again since`},
		"it was merged away": {split, func(u *undoing) {
			u.carryOut()
			u.apply(placement.BeginMerge(u.Map().Shard(2), u.Map().Shard(3), "a test"))
			u.carryOut()
		}, "[3] it is not there any more"},
		"somebody wants the boundary": {split, func(u *undoing) {
			u.carryOut()
			u.apply(placement.Set(placement.PinSetting([]byte("k")), "two tenants"))
		}, `[3] it was split at "k", and that boundary is pinned: two tenants; flotilla shard merge 3 takes it away`},
		"the merge was given up": {merge, func(u *undoing) { u.apply(placement.CancelOf(3, u.Map().Operator(3).ID)) }, "[3] its merge was given up"},
		"what was merged was split": {merge, func(u *undoing) {
			u.carryOut()
			u.apply(placement.BeginSplit(u.Map().Shard(3), []byte("p"), "a test"))
			u.carryOut()
		}, `[3] it was merged at "p", and was split or merged again since`},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUndoing(t)
			c.apply(u)
			c.since(u)
			was := u.spans()
			begun, left := u.undo()
			require.Empty(t, begun)
			require.Len(t, left, 1)
			require.Contains(t, left[0], c.why)
			require.Empty(t, u.Map().Operators())
			require.Equal(t, was, u.spans())
			u.nothing()
		})
	}
}

// What cannot be undone now is left with the reason and nothing half done, stays written down,
// and is undone when it can be.
func TestUndoLater(t *testing.T) {
	steps := map[string]func(*undoing) map[*placement.Step]*placementpb.Command{
		"split": func(u *undoing) map[*placement.Step]*placementpb.Command { return u.cut(3, "k") },
		"merge": func(u *undoing) map[*placement.Step]*placementpb.Command { return u.join(3) },
		"move": func(u *undoing) map[*placement.Step]*placementpb.Command {
			return map[*placement.Step]*placementpb.Command{
				{Kind: placement.MoveReplica, Shard: 3, From: 2, To: 4}: placement.BeginMove(u.Map().Shard(3), 2, 4, "a test"),
			}
		},
	}
	lock := placement.LockSetting(3)
	for name, c := range map[string]struct {
		steps       []string
		block, free func(*undoing)
		why         string
	}{
		"it is under way":      {[]string{"split", "merge", "move"}, func(*undoing) {}, (*undoing).carryOut, "is under way; undo again when it has ended"},
		"it is locked":         {[]string{"split", "merge", "move"}, blocked(placement.Set(lock, "a test")), func(u *undoing) { u.apply(placement.Set(lock, "")) }, "shard 3 is locked: a test"},
		"the half is locked":   {[]string{"split"}, blocked(placement.Set(placement.LockSetting(5), "a test")), func(u *undoing) { u.apply(placement.Set(placement.LockSetting(5), "")) }, "shard 5 is locked: a test"},
		"a replica is silent":  {[]string{"split", "merge"}, func(u *undoing) { u.carryOut(); u.unready = errors.New("n3 does not answer") }, func(u *undoing) { u.unready = nil }, "n3 does not answer"},
		"the node has no room": {[]string{"move"}, func(u *undoing) { u.carryOut(); u.full(2) }, func(u *undoing) { u.nodes[2] = u.nodes[1] }, "n2 would have too little disk left"},
		"the node drains":      {[]string{"move"}, blocked(placement.SetState(2, placement.Draining)), func(u *undoing) { u.apply(placement.SetState(2, placement.Active)) }, "it is draining"},
		"the half is held": {[]string{"split"}, func(u *undoing) {
			u.carryOut()
			u.apply(placement.BeginMove(u.Map().Shard(5), 1, 4, "a test"))
		}, func(u *undoing) { u.apply(placement.CancelOf(5, u.Map().Operator(5).ID)) }, "shard 5 is held by operator"},
	} {
		for _, kind := range c.steps {
			t.Run(name+", "+kind, func(t *testing.T) {
				u := newUndoing(t)
				first := u.spans()
				u.plan(steps[kind](u))
				c.block(u)
				was, going := u.spans(), len(u.Map().Operators())
				for range 2 {
					begun, left := u.undo()
					require.Empty(t, begun)
					require.Len(t, left, 1)
					require.Contains(t, left[0], c.why)
				}
				require.Len(t, u.Map().Operators(), going)
				require.Equal(t, was, u.spans())
				require.Empty(t, u.Map().Rules().Pinned)
				c.free(u)
				begun, left := u.undo()
				require.Len(t, begun, 1)
				require.Empty(t, left)
				u.carryOut()
				require.Equal(t, first, u.spans())
				u.nothing()
			})
		}
	}
}

// blocked carries out what was applied, and then stands in the way.
func blocked(c *placementpb.Command) func(*undoing) {
	return func(u *undoing) {
		u.carryOut()
		u.apply(c)
	}
}

func (u *undoing) full(id shard.NodeID) {
	u.nodes[id] = placement.NodeLoad{Heard: now, DiskTotal: 1 << 40, DiskFree: 1 << 36}
}

// When no answer comes nothing is forgotten: it can be asked for again.
func TestUndoOfUnknownOutcome(t *testing.T) {
	u := newUndoing(t)
	u.plan(u.cut(3, "k"))
	u.carryOut()
	u.lost = errors.New("no leader")
	_, err := u.s.Undo(t.Context(), &adminpb.UndoRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	u.lost = nil
	begun, _ := u.undo()
	require.Len(t, begun, 1)
}

// Steps are read as they were written, and more than a setting holds are told to stay.
func TestRecords(t *testing.T) {
	steps := []placement.Step{
		{Kind: placement.Split, Shard: 2, Key: []byte("a b,c%\xff"), Epoch: 7},
		{Kind: placement.Merge, Shard: 3, Key: []byte("m"), Epoch: 9, With: 4},
		{Kind: placement.AddReplica, Shard: 5, To: 1 << 60},
	}
	for i := range 1000 {
		steps = append(steps, placement.Step{Kind: placement.MoveReplica, Shard: shard.ID(i + 6), From: 1, To: 2})
	}
	var records []record
	for _, s := range steps {
		records = append(records, recordOf(s))
	}
	text := recordsText(records)
	require.Less(t, len(text), 4096)
	read, err := recordsOf(text)
	require.NoError(t, err)
	last := read[len(read)-1]
	require.Equal(t, kindMore, last.kind)
	require.EqualValues(t, len(steps), len(read)-1+int(last.more))
	require.Equal(t, records[:len(read)-1], read[:len(read)-1])
	for _, bad := range []string{"", "move", "move 1 2", "move a 1 2", "split 1 x m", "split 1 2 %z", "more x", "move 1 2 3,"} {
		_, err := recordsOf(bad)
		require.Error(t, err, "%q", bad)
	}
}
