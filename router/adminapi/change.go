package adminapi

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

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
	result, err := s.cut(ctx, v, d, key, asked(v.Now), "split by hand", req.DryRun)
	if err != nil {
		return nil, err
	}
	return &adminpb.OperatorReply{Operator: result.GetOperatorId(), Shard: uint64(d.ID), Key: key}, nil
}

// cut begins a split. What somebody wants to begin at the key the balancer does not merge
// away, for the reason given as pin.
func (s *Server) cut(ctx context.Context, v *View, d *shard.Descriptor, key []byte, why, pin string, dryRun bool) (*placementpb.Result, error) {
	return s.reshape(ctx, v, reshaping{
		command: placement.BeginSplit(d, key, why), of: []*shard.Descriptor{d}, boundary: key, pin: pin,
		ready: func() error { return s.changes.ReadyToSplit(ctx, d) },
	}, dryRun)
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
	result, err := s.join(ctx, v, d, right, asked(v.Now), req.DryRun)
	if err != nil {
		return nil, err
	}
	return &adminpb.OperatorReply{Operator: result.GetOperatorId(), Shard: uint64(d.ID), Key: right.Span.Start, With: uint64(right.ID)}, nil
}

// join begins a merge. The boundary need not stay any more.
func (s *Server) join(ctx context.Context, v *View, d, right *shard.Descriptor, why string, dryRun bool) (*placementpb.Result, error) {
	return s.reshape(ctx, v, reshaping{
		command: placement.BeginMerge(d, right, why), of: []*shard.Descriptor{d, right}, boundary: right.Span.Start,
		ready: func() error { return s.changes.ReadyToMerge(ctx, d, right) },
	}, dryRun)
}

// reshaping is a split or a merge that is to begin.
type reshaping struct {
	command  *placementpb.Command
	of       []*shard.Descriptor // the shards whose keys it changes
	ready    func() error        // asks their nodes
	boundary []byte              // that comes or goes
	pin      string              // why it is to stay; empty: it need not
}

// reshape begins it. What is to be of the boundary is said before: the balancer must not find
// one without its pin.
func (s *Server) reshape(ctx context.Context, v *View, r reshaping, dryRun bool) (*placementpb.Result, error) {
	if err := v.allows(r.command, r.of...); err != nil {
		return nil, err
	}
	if err := r.ready(); err != nil {
		return nil, refuse(codes.FailedPrecondition, "%v", err)
	}
	if !dryRun {
		if _, err := s.changes.Propose(ctx, placement.Set(placement.PinSetting(r.boundary), r.pin)); err != nil {
			return nil, refusal(err)
		}
	}
	return s.change(ctx, v, r.command, dryRun)
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
	if err := v.allows(c, d); err != nil {
		return nil, err
	}
	if why := placement.MoveObstacle(v.Map, v.Load, v.Now, d.ID, from, to); why != "" && !req.Force {
		return nil, refuse(codes.FailedPrecondition, "move a replica of shard %s to %s: %s; --force moves it all the same", d.ID, req.To, why)
	}
	result, err := s.change(ctx, v, c, req.DryRun)
	if err != nil {
		return nil, err
	}
	return &adminpb.OperatorReply{Operator: result.GetOperatorId(), Shard: uint64(d.ID)}, nil
}

// Transfer implements adminpb.AdminServer.
func (s *Server) Transfer(ctx context.Context, req *adminpb.TransferRequest) (*adminpb.DoneReply, error) {
	return carryOut(ctx, s, req, (*View).transfer)
}

// Cancel implements adminpb.AdminServer.
func (s *Server) Cancel(ctx context.Context, req *adminpb.CancelRequest) (*adminpb.DoneReply, error) {
	return carryOut(ctx, s, req, (*View).cancel)
}

// Lock implements adminpb.AdminServer.
func (s *Server) Lock(ctx context.Context, req *adminpb.LockRequest) (*adminpb.DoneReply, error) {
	return carryOut(ctx, s, req, (*View).lock)
}

// SetNodeState implements adminpb.AdminServer.
func (s *Server) SetNodeState(ctx context.Context, req *adminpb.SetNodeStateRequest) (*adminpb.DoneReply, error) {
	return carryOut(ctx, s, req, (*View).setNodeState)
}

// Set implements adminpb.AdminServer.
func (s *Server) Set(ctx context.Context, req *adminpb.SetRequest) (*adminpb.DoneReply, error) {
	return carryOut(ctx, s, req, (*View).set)
}

// RemoveNode implements adminpb.AdminServer.
func (s *Server) RemoveNode(ctx context.Context, req *adminpb.RemoveNodeRequest) (*adminpb.DoneReply, error) {
	return carryOut(ctx, s, req, (*View).removeNode)
}

// carryOut has a change made that is one command, or none where nothing is left to be done.
func carryOut[R interface{ GetDryRun() bool }](ctx context.Context, s *Server, req R, decide func(*View, R) (*placementpb.Command, error)) (*adminpb.DoneReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	c, err := decide(v, req)
	if err == nil && c != nil {
		_, err = s.change(ctx, v, c, req.GetDryRun())
	}
	if err != nil {
		return nil, err
	}
	return &adminpb.DoneReply{}, nil
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
	var records []record
	for _, step := range steps {
		reply.Begun = append(reply.Begun, v.step(step))
		records = append(records, recordOf(step))
	}
	if req.DryRun || len(steps) == 0 {
		return reply, nil
	}
	result, err := s.change(ctx, v, placement.Set(lastApplied, recordsText(records)), false)
	reply.Version = result.GetVersion()
	return reply, err
}

// change proposes a command, or says in a dry run whether it would be taken.
func (s *Server) change(ctx context.Context, v *View, c *placementpb.Command, dryRun bool) (*placementpb.Result, error) {
	if dryRun {
		return nil, refusal(v.Map.Check(c))
	}
	result, err := s.changes.Propose(ctx, c)
	return result, refusal(err)
}

// asked is the reason of an operator that nothing but a person asks for.
func asked(now time.Time) string { return "asked for at " + now.UTC().Format(time.RFC3339) }
