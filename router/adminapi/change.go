package adminapi

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// decide is look for a change: it uses a map that contains all earlier changes.
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
	return beginOne(ctx, s, req, (*View).split)
}

// Merge implements adminpb.AdminServer.
func (s *Server) Merge(ctx context.Context, req *adminpb.MergeRequest) (*adminpb.OperatorReply, error) {
	return beginOne(ctx, s, req, (*View).merge)
}

// Move implements adminpb.AdminServer.
func (s *Server) Move(ctx context.Context, req *adminpb.MoveRequest) (*adminpb.OperatorReply, error) {
	return beginOne(ctx, s, req, (*View).move)
}

// request is what all requests for a change have in common.
type request interface{ GetDryRun() bool }

// beginOne starts an operator.
func beginOne[R request](ctx context.Context, s *Server, req R, decide func(*View, R) (*intent, error)) (*adminpb.OperatorReply, error) {
	v, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	i, err := decide(v, req)
	if err != nil {
		return nil, err
	}
	result, err := s.begin(ctx, v, i, req.GetDryRun())
	if err != nil {
		return nil, err
	}
	i.told.Operator = result.GetOperatorId()
	return &i.told, nil
}

// begin carries out an intent. A boundary is pinned before it exists: the balancer must not find it
// without its pin.
func (s *Server) begin(ctx context.Context, v *View, i *intent, dryRun bool) (*placementpb.Result, error) {
	if i.ready != nil {
		if err := i.ready(ctx, s.changes); err != nil {
			return nil, refuse(codes.FailedPrecondition, "%v", err)
		}
	}
	if i.pin != nil && !dryRun {
		if _, err := s.changes.Propose(ctx, i.pin); err != nil {
			return nil, refusal(err)
		}
	}
	return s.change(ctx, v, i.command, dryRun)
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

// carryOut makes a change that is one command, or none if nothing is left to be done.
func carryOut[R request](ctx context.Context, s *Server, req R, decide func(*View, R) (*placementpb.Command, error)) (*adminpb.DoneReply, error) {
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

// change proposes a command, or in a dry run reports whether it would be accepted.
func (s *Server) change(ctx context.Context, v *View, c *placementpb.Command, dryRun bool) (*placementpb.Result, error) {
	if dryRun {
		return nil, refusal(v.Map.Check(c))
	}
	result, err := s.changes.Propose(ctx, c)
	return result, refusal(err)
}
