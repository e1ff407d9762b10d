package adminapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// decide is look for a change: on a map that has what was changed before.
func (s *Server) decide(ctx context.Context) (*View, error) {
	v, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	if v.Map, err = s.changes.Newest(ctx); err != nil {
		return nil, refuse(codes.FailedPrecondition, "%v; nothing was changed", err)
	}
	return v, nil
}

// Split implements adminpb.AdminServer.
func (s *Server) Split(ctx context.Context, req *adminpb.SplitRequest) (*adminpb.OperatorReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	d, key, err := v.cut(req)
	if err != nil {
		return nil, err
	}
	c := placement.BeginSplit(d, key, asked(v.Now))
	if err := v.Map.Check(c); err != nil {
		return nil, refusal(err)
	}
	if err := s.changes.ReadyToSplit(ctx, d); err != nil {
		return nil, refuse(codes.FailedPrecondition, "%v", err)
	}
	// What somebody wants to begin there the balancer does not merge away.
	if err := s.pin(ctx, key, "split by hand", req.DryRun); err != nil {
		return nil, err
	}
	return s.begin(ctx, v, c, &adminpb.OperatorReply{Shard: uint64(d.ID), Key: key}, req.DryRun)
}

// Merge implements adminpb.AdminServer.
func (s *Server) Merge(ctx context.Context, req *adminpb.MergeRequest) (*adminpb.OperatorReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	d, err := v.find(req.Shard)
	if err != nil {
		return nil, err
	}
	right := v.Map.RightOf(d)
	if right == nil {
		return nil, refuse(codes.FailedPrecondition, "merge shard %s with its right neighbour: it is the last one and has none; name the one before it", d.ID)
	}
	c := placement.BeginMerge(d, right, asked(v.Now))
	if err := v.Map.Check(c); err != nil {
		return nil, refusal(err)
	}
	if err := s.changes.ReadyToMerge(ctx, d, right); err != nil {
		return nil, refuse(codes.FailedPrecondition, "%v", err)
	}
	if err := s.pin(ctx, right.Span.Start, "", req.DryRun); err != nil {
		return nil, err
	}
	return s.begin(ctx, v, c, &adminpb.OperatorReply{Shard: uint64(d.ID), Key: right.Span.Start, With: uint64(right.ID)}, req.DryRun)
}

// pin says why a shard is to begin at the key, or with no reason that none need.
func (s *Server) pin(ctx context.Context, key []byte, reason string, dryRun bool) error {
	if dryRun {
		return nil
	}
	_, err := s.changes.Propose(ctx, placement.Set(placement.PinSetting(key), reason))
	return refusal(err)
}

// cut finds the shard that is to be split, and where.
func (v *View) cut(req *adminpb.SplitRequest) (*shard.Descriptor, []byte, error) {
	if req.Shard == 0 && len(req.Key) == 0 {
		return nil, nil, refuse(codes.InvalidArgument, "split: name a shard, or a key to split at, or both")
	}
	if req.Shard == 0 {
		return v.Map.Lookup(req.Key), req.Key, nil
	}
	d, err := v.find(req.Shard)
	if err != nil || len(req.Key) > 0 {
		return d, req.Key, err
	}
	load := v.Load.Shards[d.ID]
	for _, p := range []placement.SplitPoint{load.Balance, load.Middle} {
		if len(p.Key) > 0 {
			return d, p.Key, nil
		}
	}
	return nil, nil, refuse(codes.FailedPrecondition, "split shard %s: no key is known that divides its writes or its bytes; name one", d.ID)
}

// Move implements adminpb.AdminServer.
func (s *Server) Move(ctx context.Context, req *adminpb.MoveRequest) (*adminpb.OperatorReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	d, err := v.group(req.Shard)
	if err != nil {
		return nil, err
	}
	from, to, err := v.ends(d, req)
	if err != nil {
		return nil, err
	}
	c := placement.BeginMove(d, from, to, asked(v.Now))
	if err := v.Map.Check(c); err != nil {
		return nil, refusal(err)
	}
	if why := placement.MoveObstacle(v.Map, v.Load, v.Now, d.ID, from, to); why != "" && !req.Force {
		return nil, refuse(codes.FailedPrecondition, "move a replica of shard %s to %s: %s; --force moves it all the same", d.ID, req.To, why)
	}
	return s.begin(ctx, v, c, &adminpb.OperatorReply{Shard: uint64(d.ID)}, req.DryRun)
}

// ends finds the nodes of a move, and refuses one that would leave too few replicas: the
// balancer would add another at once.
func (v *View) ends(d *shard.Descriptor, req *adminpb.MoveRequest) (from, to shard.NodeID, err error) {
	if req.From == "" && req.To == "" {
		return 0, 0, refuse(codes.InvalidArgument, "move a replica of shard %s: name the node it goes to, the node it leaves, or both", d.ID)
	}
	if req.To != "" {
		n, err := v.active(req.To)
		if err != nil {
			return 0, 0, err
		}
		to = n.ID
	}
	if req.From == "" {
		return 0, to, nil
	}
	n, err := v.member(req.From)
	if err != nil {
		return 0, 0, err
	}
	r, has := d.ReplicaOn(n.ID)
	if !has {
		return 0, 0, refuse(codes.FailedPrecondition, "shard %s has no replica on %s; it is on %s", d.ID, n.Name, v.holders(d))
	}
	voters := 0
	for _, r := range d.Replicas {
		if !r.Learner {
			voters++
		}
	}
	if want := v.Map.ReplicationFactor(); to == 0 && !r.Learner && voters <= want {
		return 0, 0, refuse(codes.FailedPrecondition, "shard %s has %d replicas and should have %d; name a node that takes the one on %s, or lower %s",
			d.ID, voters, want, n.Name, placement.SettingReplicationFactor)
	}
	return n.ID, to, nil
}

// Transfer implements adminpb.AdminServer.
func (s *Server) Transfer(ctx context.Context, req *adminpb.TransferRequest) (*adminpb.DoneReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	d, err := v.group(req.Shard)
	if err != nil {
		return nil, err
	}
	n, err := v.active(req.To)
	if err != nil {
		return nil, err
	}
	if r, has := d.ReplicaOn(n.ID); !has || r.Learner {
		return nil, refuse(codes.FailedPrecondition, "shard %s has no replica on %s that could lead; it is on %s", d.ID, n.Name, v.holders(d))
	}
	if d.PreferredNode == n.ID {
		return &adminpb.DoneReply{}, nil // it leads, or is about to
	}
	return s.done(ctx, v, placement.Prefer(d, n.ID), req.DryRun)
}

// Cancel implements adminpb.AdminServer.
func (s *Server) Cancel(ctx context.Context, req *adminpb.CancelRequest) (*adminpb.DoneReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range v.Map.Operators() {
		if o.ID == req.Operator {
			return s.done(ctx, v, placement.CancelOf(o.Shard, o.ID), req.DryRun)
		}
	}
	return nil, refuse(codes.NotFound, "operator %d has ended, or there never was one; flotilla operator ls lists those that go on", req.Operator)
}

// Lock implements adminpb.AdminServer.
func (s *Server) Lock(ctx context.Context, req *adminpb.LockRequest) (*adminpb.DoneReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	d, err := v.group(req.Shard)
	if err != nil {
		return nil, err
	}
	return s.done(ctx, v, placement.Set(placement.LockSetting(d.ID), req.Reason), req.DryRun)
}

// SetNodeState implements adminpb.AdminServer.
func (s *Server) SetNodeState(ctx context.Context, req *adminpb.SetNodeStateRequest) (*adminpb.DoneReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	n, err := v.member(req.Node)
	if err != nil {
		return nil, err
	}
	states := []placement.NodeState{placement.Active, placement.Draining, placement.Decommissioning}
	for _, state := range states {
		if state.String() != req.State {
			continue
		}
		if state == placement.Decommissioning {
			if err := v.Map.Spares(n.ID); err != nil {
				return nil, refuse(codes.FailedPrecondition, "%v", err)
			}
		}
		return s.done(ctx, v, placement.SetState(n.ID, state), req.DryRun)
	}
	return nil, refuse(codes.InvalidArgument, "state %q: want active, draining or decommissioning", req.State)
}

// Set implements adminpb.AdminServer.
func (s *Server) Set(ctx context.Context, req *adminpb.SetRequest) (*adminpb.DoneReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	return s.done(ctx, v, placement.Set(req.Name, req.Value), req.DryRun)
}

// RemoveNode implements adminpb.AdminServer. That a node holds nothing is not enough: one
// that is active is about to be given something.
func (s *Server) RemoveNode(ctx context.Context, req *adminpb.RemoveNodeRequest) (*adminpb.DoneReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	n, err := v.member(req.Node)
	if err != nil {
		return nil, err
	}
	if n.State != placement.Decommissioning {
		return nil, refuse(codes.FailedPrecondition, "%s is %s; flotilla node decommission %s --wait empties it first", n.Name, n.State, n.Name)
	}
	return s.done(ctx, v, placement.Remove(n.ID), req.DryRun)
}

// Rebalance implements adminpb.AdminServer.
func (s *Server) Rebalance(ctx context.Context, req *adminpb.RebalanceRequest) (*adminpb.RebalanceReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	steps := v.plan().Steps
	if !req.DryRun {
		if steps, err = s.changes.Rebalance(ctx); err != nil {
			return nil, refusal(err)
		}
	}
	reply := &adminpb.RebalanceReply{}
	for _, step := range steps {
		reply.Begun = append(reply.Begun, v.step(step))
	}
	if req.DryRun || len(steps) == 0 {
		return reply, nil
	}
	_, err = s.change(ctx, v, placement.Set(lastApplied, stepsText(steps)), false)
	return reply, err
}

// begin proposes an operator, or says in a dry run whether it would be taken.
func (s *Server) begin(ctx context.Context, v *View, c *placementpb.Command, reply *adminpb.OperatorReply, dryRun bool) (*adminpb.OperatorReply, error) {
	result, err := s.change(ctx, v, c, dryRun)
	if err != nil {
		return nil, err
	}
	reply.Operator = result.GetOperatorId()
	return reply, nil
}

func (s *Server) done(ctx context.Context, v *View, c *placementpb.Command, dryRun bool) (*adminpb.DoneReply, error) {
	if _, err := s.change(ctx, v, c, dryRun); err != nil {
		return nil, err
	}
	return &adminpb.DoneReply{}, nil
}

func (s *Server) change(ctx context.Context, v *View, c *placementpb.Command, dryRun bool) (*placementpb.Result, error) {
	if dryRun {
		return nil, refusal(v.Map.Check(c))
	}
	result, err := s.changes.Propose(ctx, c)
	return result, refusal(err)
}

// refusal is an error as clients see it. Unavailable is one of unknown outcome.
func refusal(err error) error {
	var refused *placement.RefusedError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return refuse(codes.Unavailable, "%v", err)
	}
	code := codes.FailedPrecondition
	switch refused.Code {
	case placementpb.Code_INVALID_ARGUMENT:
		code = codes.InvalidArgument
	case placementpb.Code_NOT_FOUND:
		code = codes.NotFound
	case placementpb.Code_CONFLICT:
		code = codes.Aborted
	}
	return refuse(code, "%s", refused.Message)
}

// isUnknown reports whether a change may have been made or not.
func isUnknown(err error) bool { return status.Code(err) == codes.Unavailable }

// refusalText is what a refusal says, without what every one begins with.
func refusalText(err error) string {
	return strings.TrimPrefix(status.Convert(err).Message(), errorPrefix)
}

const errorPrefix = "flotilla: "

func refuse(code codes.Code, format string, args ...any) error {
	return status.Error(code, errorPrefix+fmt.Sprintf(format, args...))
}

// asked is the reason of an operator that nothing but a person asks for.
func asked(now time.Time) string { return "asked for at " + now.UTC().Format(time.RFC3339) }

func (v *View) find(id uint64) (*shard.Descriptor, error) {
	if shard.ID(id) == shard.MetaID {
		return nil, refuse(codes.FailedPrecondition, "shard 1 is the meta group, which has no keys")
	}
	if d := v.Map.Shard(shard.ID(id)); d != nil {
		return d, nil
	}
	return nil, refuse(codes.NotFound, "shard %d is not in the placement table; flotilla shard ls lists those that are", id)
}

// group is find for what the meta group can do as well.
func (v *View) group(id uint64) (*shard.Descriptor, error) {
	if d := v.Map.Shard(shard.MetaID); d != nil && d.ID == shard.ID(id) {
		return d, nil
	}
	return v.find(id)
}

// member finds a node by its name.
func (v *View) member(name string) (*placement.Node, error) {
	if n := v.Map.NodeByName(name); n != nil && n.State != placement.Removed {
		return n, nil
	}
	var names []string
	for _, n := range v.Map.Nodes() {
		names = append(names, n.Name)
	}
	return nil, refuse(codes.NotFound, "node %q is not part of the cluster, whose nodes are %s", name, strings.Join(names, ", "))
}

// active finds a node that may be given something: the balancer would take it away again
// from others.
func (v *View) active(name string) (*placement.Node, error) {
	n, err := v.member(name)
	if err == nil && n.State != placement.Active {
		return nil, refuse(codes.FailedPrecondition, "%s is %s and takes nothing; flotilla node undrain makes it active", n.Name, n.State)
	}
	return n, err
}

// holders are the nodes of a shard.
func (v *View) holders(d *shard.Descriptor) string {
	var names []string
	for _, r := range d.Replicas {
		names = append(names, v.name(r.Node))
	}
	return strings.Join(names, ", ")
}
