package adminapi

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Server serves the Admin service.
type Server struct {
	adminpb.UnimplementedAdminServer
	cluster Cluster
	changes Changes
}

// New returns a Server that reports on cluster and changes it through changes.
func New(cluster Cluster, changes Changes) *Server {
	return &Server{cluster: cluster, changes: changes}
}

// Register adds the service to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) { adminpb.RegisterAdminServer(g, s) }

func (s *Server) look(ctx context.Context) (*View, error) {
	v, err := s.cluster.Look(ctx)
	if err != nil {
		return nil, refuse(codes.Unavailable, "look at the cluster: %v", err)
	}
	return v, nil
}

// Nodes implements adminpb.AdminServer.
func (s *Server) Nodes(ctx context.Context, _ *adminpb.NodesRequest) (*adminpb.NodesReply, error) {
	v, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	reply, plan := &adminpb.NodesReply{}, sync.OnceValue(v.plan)
	for _, n := range v.Map.Nodes() {
		told := v.node(n)
		if n.State != placement.Active {
			told.Emptying = v.emptying(n, plan())
		}
		reply.Nodes = append(reply.Nodes, told)
	}
	return reply, nil
}

// Shards implements adminpb.AdminServer.
func (s *Server) Shards(ctx context.Context, req *adminpb.ShardsRequest) (*adminpb.ShardsReply, error) {
	v, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	reply := &adminpb.ShardsReply{Version: v.Map.Version()}
	if group := v.Map.Shard(shard.MetaID); req.Id == uint64(shard.MetaID) && group != nil { // it owns no keys
		reply.Shards = append(reply.Shards, v.shard(group))
		return reply, nil
	}
	span := shard.Span{Start: req.Span.GetStart(), End: req.Span.GetEnd()}
	for _, d := range v.Map.Overlapping(span) {
		if req.Id == 0 || d.ID == shard.ID(req.Id) {
			reply.Shards = append(reply.Shards, v.shard(d))
		}
	}
	switch {
	case req.Id == 0 || len(reply.Shards) > 0:
		return reply, nil
	case req.Span == nil:
		return nil, refuse(codes.NotFound, "shard %d is not in the placement table", req.Id)
	}
	return nil, refuse(codes.NotFound, "shard %d is not in the placement table, or owns no key of the span asked for", req.Id)
}

// Operators implements adminpb.AdminServer.
func (s *Server) Operators(ctx context.Context, _ *adminpb.OperatorsRequest) (*adminpb.OperatorsReply, error) {
	v, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	reply := &adminpb.OperatorsReply{Version: v.Map.Version()}
	for _, o := range v.Map.Operators() {
		reply.Operators = append(reply.Operators, v.operator(o))
	}
	return reply, nil
}

// Settings implements adminpb.AdminServer.
func (s *Server) Settings(ctx context.Context, _ *adminpb.SettingsRequest) (*adminpb.SettingsReply, error) {
	v, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	reply := &adminpb.SettingsReply{Rebalance: v.Map.Rules().Rebalance, BalancerWaits: v.BalancerWaits}
	for _, one := range v.Map.Settings() {
		reply.Settings = append(reply.Settings, &adminpb.Setting{Name: one.Name, Value: one.Value})
	}
	return reply, nil
}

// Plan implements adminpb.AdminServer.
func (s *Server) Plan(ctx context.Context, _ *adminpb.PlanRequest) (*adminpb.PlanReply, error) {
	v, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	decision := v.plan()
	reply := &adminpb.PlanReply{}
	for _, step := range decision.Steps {
		reply.Steps = append(reply.Steps, v.step(step))
	}
	for _, r := range decision.Reasons {
		reason := &adminpb.Reason{Rule: string(r.Rule), Text: r.Text}
		for _, id := range r.Shards {
			reason.Shards = append(reason.Shards, uint64(id))
		}
		reply.Reasons = append(reply.Reasons, reason)
	}
	return reply, nil
}

// plan is what the balancer would do.
func (v *View) plan() *placement.Decision {
	return placement.Plan(v.Map, v.Load, v.Map.Rules(), v.Now)
}
