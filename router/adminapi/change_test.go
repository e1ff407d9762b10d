package adminapi

import (
	"context"
	"errors"
	"maps"
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

// changed is a placement table that takes changes, and is looked at without delay. What
// there is besides it is nothing or broken.
type changed struct {
	*placement.State
	unready error
	lost    error                               // the outcome of proposals stays unknown
	steps   []placement.Step                    // that a round begins
	nodes   map[shard.NodeID]placement.NodeLoad // what they told otherwise
	checked *Checked
}

func (c *changed) Look(context.Context) (*View, error) {
	load := known()
	load.Nodes[4] = placement.NodeLoad{Heard: now, DiskTotal: 1 << 40, DiskFree: 1 << 39}
	maps.Copy(load.Nodes, c.nodes)
	return &View{Now: now, Map: c.Map(), Load: load}, nil
}

func (c *changed) Newest(context.Context) (*placement.Map, error) { return c.Map(), nil }

func (c *changed) Propose(_ context.Context, cmd *placementpb.Command) (*placementpb.Result, error) {
	if c.lost != nil {
		return nil, c.lost
	}
	result := c.Apply(cmd)
	return result, placement.ResultError(result)
}

func (c *changed) ReadyToSplit(context.Context, *shard.Descriptor) error { return c.unready }

func (c *changed) ReadyToMerge(context.Context, *shard.Descriptor, *shard.Descriptor) error {
	return c.unready
}

func (c *changed) Rebalance(context.Context) ([]placement.Step, error) {
	return c.steps, c.lost
}

func (c *changed) CheckShard(context.Context, shard.ID) (*Checked, error) { return c.checked, c.lost }

// withFourth is three nodes with all shards, and one that has joined.
func withFourth(t *testing.T) (*Server, *changed) {
	t.Helper()
	c := &changed{State: placement.NewState()}
	for _, cmd := range []*placementpb.Command{founded(), {Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{
		Node: &placementpb.Node{Name: "n4", PeerAddr: "n4:1", Incarnation: []byte("n4")},
	}}}} {
		require.NoError(t, placement.ResultError(c.Apply(cmd)))
	}
	return New(c, c), c
}

// What may not be done is refused for the same reason by a dry run, and nothing changes.
func TestRefusedChanges(t *testing.T) {
	s, c := withFourth(t)
	ctx := t.Context()
	require.NoError(t, placement.ResultError(c.Apply(splitting())))
	require.NoError(t, placement.ResultError(c.Apply(placement.SetState(3, placement.Draining))))
	was := c.Map()
	for name, call := range map[string]struct {
		do   func(dry bool) error
		code codes.Code
		says string
	}{
		"split of nothing":         {s.split(ctx, 0, ""), codes.InvalidArgument, "name a shard, or a key"},
		"split of no shard":        {s.split(ctx, 9, "a"), codes.NotFound, "shard 9 is not in the placement table"},
		"split of the meta group":  {s.split(ctx, 1, "a"), codes.FailedPrecondition, "shard 1 is the meta group, which has no keys"},
		"split at a boundary":      {s.split(ctx, 4, "p"), codes.FailedPrecondition, `shard 4: it begins at "p" already`},
		"split at that of another": {s.split(ctx, 0, "p"), codes.FailedPrecondition, `shard 4: it begins at "p" already`},
		"split outside":            {s.split(ctx, 2, "x"), codes.FailedPrecondition, "is not inside its span"},
		"split of a held shard":    {s.split(ctx, 3, "i"), codes.FailedPrecondition, "is held by operator"},
		"split without a key":      {s.split(ctx, 4, ""), codes.FailedPrecondition, "no key is known"},
		"merge of no shard":        {s.merge(ctx, 9), codes.NotFound, "shard 9 is not in the placement table"},
		"merge of the last":        {s.merge(ctx, 4), codes.FailedPrecondition, "it is the last one and has none"},
		"merge of a held shard":    {s.merge(ctx, 3), codes.FailedPrecondition, "is held by operator"},
		"merge with a held shard":  {s.merge(ctx, 2), codes.FailedPrecondition, "is held by operator"},
		"move from nowhere":        {s.move(ctx, 2, "", ""), codes.InvalidArgument, "name the node it goes to"},
		"move from where none is":  {s.move(ctx, 2, "n4", ""), codes.FailedPrecondition, "has no replica on n4; it is on n1, n2, n3"},
		"move to an unknown node":  {s.move(ctx, 2, "", "n9"), codes.NotFound, "whose nodes are n1, n2, n3, n4"},
		"move to a draining node":  {s.move(ctx, 2, "", "n3"), codes.FailedPrecondition, "n3 is draining"},
		"move to where one is":     {s.move(ctx, 2, "n1", "n2"), codes.FailedPrecondition, "has a replica already"},
		"below the factor":         {s.move(ctx, 2, "n1", ""), codes.FailedPrecondition, "has 3 of 3 replicas"},
		"move of a held shard":     {s.move(ctx, 3, "n1", "n4"), codes.FailedPrecondition, "is held by operator"},
		"leader without replica":   {s.transfer(ctx, 2, "n4"), codes.FailedPrecondition, "has no replica on n4 that could lead"},
		"leader that drains":       {s.transfer(ctx, 2, "n3"), codes.FailedPrecondition, "n3 is draining"},
		"leader of a held shard":   {s.transfer(ctx, 3, "n1"), codes.FailedPrecondition, "is held by operator"},
		"state of no node":         {s.state(ctx, "n9", "draining"), codes.NotFound, "not part of the cluster"},
		"state that is none":       {s.state(ctx, "n1", "removed"), codes.InvalidArgument, "want active, draining or decommissioning"},
		"too few nodes left":       {s.state(ctx, "n1", "decommissioning"), codes.FailedPrecondition, "without it 2 nodes are active"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, dry := range []bool{true, false} {
				err := call.do(dry)
				require.Equal(t, call.code, status.Code(err), "%v", err)
				require.ErrorContains(t, err, call.says)
				require.Same(t, was, c.Map())
			}
		})
	}
	c.unready = errors.New("n3 does not answer")
	require.ErrorContains(t, s.split(ctx, 4, "t")(true), "n3 does not answer")
	c.unready, c.lost = nil, errors.New("no leader")
	require.Equal(t, codes.Unavailable, status.Code(s.split(ctx, 4, "t")(false)), "its outcome is unknown")
}

func (s *Server) split(ctx context.Context, id uint64, key string) func(bool) error {
	return func(dry bool) error {
		_, err := s.Split(ctx, &adminpb.SplitRequest{Shard: id, Key: []byte(key), DryRun: dry})
		return err
	}
}

func (s *Server) merge(ctx context.Context, id uint64) func(bool) error {
	return func(dry bool) error {
		_, err := s.Merge(ctx, &adminpb.MergeRequest{Shard: id, DryRun: dry})
		return err
	}
}

func (s *Server) move(ctx context.Context, id uint64, from, to string) func(bool) error {
	return func(dry bool) error {
		_, err := s.Move(ctx, &adminpb.MoveRequest{Shard: id, From: from, To: to, DryRun: dry})
		return err
	}
}

func (s *Server) transfer(ctx context.Context, id uint64, to string) func(bool) error {
	return func(dry bool) error {
		_, err := s.Transfer(ctx, &adminpb.TransferRequest{Shard: id, To: to, DryRun: dry})
		return err
	}
}

func (s *Server) state(ctx context.Context, node, state string) func(bool) error {
	return func(dry bool) error {
		_, err := s.SetNodeState(ctx, &adminpb.SetNodeStateRequest{Node: node, State: state, DryRun: dry})
		return err
	}
}

// A locked shard stays where it is, whoever asks, until it is unlocked.
func TestLockedShards(t *testing.T) {
	s, c := withFourth(t)
	ctx := t.Context()
	lock := func(reason string) {
		_, err := s.Lock(ctx, &adminpb.LockRequest{Shard: 4, Reason: reason})
		require.NoError(t, err)
	}
	forced := func(dry bool) error {
		_, err := s.Move(ctx, &adminpb.MoveRequest{Shard: 4, From: "n1", To: "n4", Force: true, DryRun: dry})
		return err
	}
	for name, do := range map[string]func(bool) error{
		"split": s.split(ctx, 4, "t"), "merge": s.merge(ctx, 3), "move": s.move(ctx, 4, "n1", "n4"), "forced": forced, "transfer": s.transfer(ctx, 4, "n1"),
	} {
		lock("a test")
		was := c.Map()
		for _, dry := range []bool{true, false} {
			err := do(dry)
			require.Equal(t, codes.FailedPrecondition, status.Code(err), name)
			require.ErrorContains(t, err, "shard 4 is locked: a test; flotilla shard unlock 4 lets it be changed", name)
			require.Same(t, was, c.Map(), name)
		}
		lock("")
		require.NoError(t, do(true), name)
	}
}

// What may be done is recorded; a dry run says so and records nothing.
func TestChanges(t *testing.T) {
	s, c := withFourth(t)
	ctx := t.Context()
	was := c.Map()
	for _, do := range []func(bool) error{
		s.split(ctx, 3, ""), s.split(ctx, 0, "t"), s.move(ctx, 2, "n1", "n4"), s.transfer(ctx, 2, "n2"), s.state(ctx, "n3", "decommissioning"),
	} {
		require.NoError(t, do(true))
		require.Same(t, was, c.Map())
	}
	split, err := s.Split(ctx, &adminpb.SplitRequest{Shard: 3})
	require.NoError(t, err)
	require.Equal(t, "i", string(split.Key), "where its bytes divide")
	move, err := s.Move(ctx, &adminpb.MoveRequest{Shard: 4, From: "n1", To: "n4"})
	require.NoError(t, err)
	require.NoError(t, s.transfer(ctx, 2, "n2")(false))
	require.NoError(t, s.transfer(ctx, 2, "n2")(false), "again")
	require.NoError(t, s.state(ctx, "n3", "decommissioning")(false))
	require.EqualValues(t, 2, c.Map().Shard(2).PreferredNode)
	require.Equal(t, placement.Decommissioning, c.Map().Node(3).State)

	list, err := s.Operators(ctx, &adminpb.OperatorsRequest{})
	require.NoError(t, err)
	require.Len(t, list.Operators, 2)
	require.Equal(t, []any{split.Operator, uint64(3), move.Operator, "n4"},
		[]any{list.Operators[0].Id, list.Operators[0].Shard, list.Operators[1].Id, list.Operators[1].To})
	require.Contains(t, list.Operators[0].Why, "asked for at 2026-01-02T03:04:05Z")
	require.GreaterOrEqual(t, list.Version, move.Operator)
	_, err = s.Cancel(ctx, &adminpb.CancelRequest{Operator: move.Operator})
	require.NoError(t, err)
	_, err = s.Cancel(ctx, &adminpb.CancelRequest{Operator: move.Operator})
	require.Equal(t, codes.NotFound, status.Code(err))

	_, err = s.Lock(ctx, &adminpb.LockRequest{Shard: 4, Reason: "a test"})
	require.NoError(t, err)
	_, err = s.Set(ctx, &adminpb.SetRequest{Name: placement.SettingRebalance, Value: "off"})
	require.NoError(t, err)
	_, err = s.Set(ctx, &adminpb.SetRequest{Name: placement.SettingRebalance, Value: "no"})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	settings, err := s.Settings(ctx, &adminpb.SettingsRequest{})
	require.NoError(t, err)
	require.False(t, settings.Rebalance)
	require.Equal(t, "lock/4", settings.Settings[0].Name)

	c.steps = []placement.Step{{Kind: placement.TransferLeader, Shard: 3, From: 1, To: 2}}
	begun, err := s.Rebalance(ctx, &adminpb.RebalanceRequest{})
	require.NoError(t, err)
	require.Equal(t, []any{"lead", "n1", "n2"}, []any{begun.Begun[0].Kind, begun.Begun[0].From, begun.Begun[0].To})
}

// A move that the balancer would not make is refused, unless it is forced.
func TestMovesThatAreNoGood(t *testing.T) {
	for name, c := range map[string]struct {
		load placement.NodeLoad
		says string
	}{
		"dead":         {placement.NodeLoad{Heard: now.Add(-time.Hour), DiskTotal: 1 << 40, DiskFree: 1 << 39}, "n4 takes no replica: it is dead"},
		"silent":       {placement.NodeLoad{}, "n4 takes no replica: it is"},
		"full":         {placement.NodeLoad{Heard: now, DiskTotal: 1 << 40, DiskFree: 1 << 36}, "n4 would have too little disk left"},
		"unknown disk": {placement.NodeLoad{Heard: now}, "the size of its disk is not known"},
		"same zone":    {placement.NodeLoad{Heard: now, DiskTotal: 1 << 40, DiskFree: 1 << 39}, "replicas would share a zone"},
	} {
		t.Run(name, func(t *testing.T) {
			s, table := withFourth(t)
			table.nodes = map[shard.NodeID]placement.NodeLoad{4: c.load}
			for i, zone := range []string{"a", "b", "c", "b"} {
				require.NoError(t, placement.ResultError(table.Apply(&placementpb.Command{Body: &placementpb.Command_UpdateNode{UpdateNode: &placementpb.UpdateNode{
					NodeId: uint64(i + 1), Labels: &placementpb.Labels{Labels: []*placementpb.Label{{Name: "zone", Value: zone}}},
				}}})))
			}
			req := &adminpb.MoveRequest{Shard: 2, From: "n1", To: "n4"}
			for _, dry := range []bool{true, false} {
				req.DryRun = dry
				_, err := s.Move(t.Context(), req)
				require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
				require.ErrorContains(t, err, c.says)
				require.Empty(t, table.Map().Operators())
			}
			req.Force = true
			_, err := s.Move(t.Context(), req)
			require.NoError(t, err)
		})
	}
}

// A node is removed when it was decommissioned and holds nothing.
func TestRemovedNodes(t *testing.T) {
	s, c := withFourth(t)
	remove := func(name string, dry bool) error {
		_, err := s.RemoveNode(t.Context(), &adminpb.RemoveNodeRequest{Node: name, DryRun: dry})
		return err
	}
	require.ErrorContains(t, remove("n4", false), "n4 is active; flotilla node decommission n4 --wait empties it first")
	require.Equal(t, codes.NotFound, status.Code(remove("n9", false)))
	require.NoError(t, s.state(t.Context(), "n1", "decommissioning")(false))
	require.ErrorContains(t, remove("n1", true), "it still holds replicas of")
	require.ErrorContains(t, remove("n1", false), "it still holds replicas of")
	require.NoError(t, s.state(t.Context(), "n1", "active")(false))
	require.NoError(t, s.state(t.Context(), "n4", "decommissioning")(false))
	require.NoError(t, remove("n4", true))
	require.NoError(t, remove("n4", false))
	require.Equal(t, codes.NotFound, status.Code(remove("n4", false)), "again")
	require.Equal(t, placement.Removed, c.Map().Node(4).State)
}

// A boundary that somebody made by hand stays until somebody takes it away by hand.
func TestBoundariesByHandArePinned(t *testing.T) {
	s, c := withFourth(t)
	pinned := func() bool {
		_, pinned := c.Map().Rules().Pinned["p"]
		return pinned
	}
	require.NoError(t, placement.ResultError(c.Apply(placement.Set(placement.PinSetting([]byte("p")), "a test"))))
	c.unready = errors.New("n3 does not answer")
	require.ErrorContains(t, s.merge(t.Context(), 3)(false), "n3 does not answer")
	c.unready = nil
	require.NoError(t, s.merge(t.Context(), 3)(true))
	require.True(t, pinned())
	require.NoError(t, s.merge(t.Context(), 3)(false))
	require.False(t, pinned())
	require.NoError(t, s.split(t.Context(), 2, "b")(false))
	require.Contains(t, c.Map().Rules().Pinned, "b")
}
