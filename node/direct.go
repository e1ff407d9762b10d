package node

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// Report implements routerpb.PeerServer.
func (s *peerServer) Report(_ context.Context, req *routerpb.ReportRequest) (*routerpb.ReportReply, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	reply := &routerpb.ReportReply{}
	add := func(r *replica.Replica) {
		leader, term := s.node.host.Leader(r.ID())
		view := r.View()
		told := &routerpb.ReplicaReport{
			Shard: uint64(r.ID()), Replica: uint64(r.ReplicaID()), Applied: view.Applied, Leader: uint64(leader), Term: term,
		}
		told.Poisoned = view.Poisoned
		if d := view.Descriptor; d != nil {
			told.Epoch, told.Generation = d.Epoch, d.Generation
		}
		reply.Replicas = append(reply.Replicas, told)
	}
	if len(req.Shards) == 0 {
		s.node.host.Each(add)
	}
	for _, id := range req.Shards {
		if r, ok := s.node.host.Replica(shard.ID(id)); ok {
			add(r)
		}
	}
	return reply, nil
}

// Direct implements routerpb.PeerServer.
func (s *peerServer) Direct(ctx context.Context, req *routerpb.DirectRequest) (*routerpb.DirectReply, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	r, ok := s.node.host.Replica(shard.ID(req.Shard))
	if !ok {
		return nil, status.Errorf(codes.FailedPrecondition, "node %q runs no replica of shard %d", s.node.cfg.Name, req.Shard)
	}
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	if err := s.obey(ctx, r, req); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &routerpb.DirectReply{}, nil
}

func (s *peerServer) obey(ctx context.Context, r *replica.Replica, req *routerpb.DirectRequest) error {
	switch o := req.Order.(type) {
	case *routerpb.DirectRequest_CatchUp:
		if r.ReplicaID() != shard.ReplicaID(o.CatchUp.Replica) {
			return status.Errorf(codes.FailedPrecondition, "shard %s runs as replica %d here, not as %d", r.ID(), r.ReplicaID(), o.CatchUp.Replica)
		}
		return r.CatchUp(ctx)
	case *routerpb.DirectRequest_SecureSeed:
		return r.SecureSeed(ctx, shard.DescriptorOf(o.SecureSeed))
	case *routerpb.DirectRequest_Wean:
		return r.Wean(ctx)
	}
	if !r.Leads() {
		return &shard.NotLeaderError{Shard: r.ID(), Leader: r.LeaderNode()}
	}
	switch o := req.Order.(type) {
	case *routerpb.DirectRequest_AddLearner:
		return r.AddLearner(ctx, shard.ReplicaID(o.AddLearner.Replica), o.AddLearner.PeerAddr)
	case *routerpb.DirectRequest_Promote:
		return r.Promote(ctx, shard.ReplicaID(o.Promote.Replica), o.Promote.PeerAddr)
	case *routerpb.DirectRequest_Transfer:
		return s.node.handOver(ctx, r, shard.ReplicaID(o.Transfer.Replica))
	case *routerpb.DirectRequest_Remove:
		return r.Dismiss(ctx, shard.ReplicaID(o.Remove.Replica))
	case *routerpb.DirectRequest_Split:
		return s.node.divide(ctx, r, shard.DescriptorOf(o.Split.Descriptor_), shard.DescriptorOf(o.Split.Child))
	case *routerpb.DirectRequest_Initialise:
		return r.Initialise(ctx, shard.DescriptorOf(o.Initialise))
	default:
		return status.Errorf(codes.Unimplemented, "this version knows no order %T", o)
	}
}

// handOver makes another replica of the shard lead, and returns when one does.
func (n *Node) handOver(ctx context.Context, r *replica.Replica, heir shard.ReplicaID) error {
	d := r.View().Descriptor
	if d == nil { // a new group: nothing is written to it, and who is where it does not say
		return r.Yield(heir)
	}
	catchUp := &routerpb.DirectRequest{Shard: uint64(r.ID()), Order: &routerpb.DirectRequest_CatchUp{CatchUp: &routerpb.Member{Replica: uint64(heir)}}}
	return r.HandOver(ctx, heir, func(ctx context.Context) error {
		return n.control.order(ctx, n.table.Map(), d.NodeOf(heir), catchUp)
	})
}
