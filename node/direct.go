package node

import (
	"context"
	"errors"
	"fmt"

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
	reply := &routerpb.ReportReply{Ended: s.node.departed.all()}
	add := func(r *replica.Replica) {
		leader, term := s.node.host.Leader(r.ID())
		view := r.View()
		told := &routerpb.ReplicaReport{
			Shard: uint64(r.ID()), Replica: uint64(r.ReplicaID()), Applied: view.Applied, Leader: uint64(leader), Term: term,
		}
		told.Last, _ = s.node.host.LogEnds(r.ID()) // 0 if it is about to stop
		told.Unfit = r.Unfit()
		if c, any := r.Checksum(); any {
			told.Checksum = &routerpb.Checksum{Index: c.Index, Done: c.Done, Sum: c.Sum, Versions: c.Versions, Bytes: c.Bytes, Damage: c.Damage}
		}
		if view.Frozen != nil {
			told.FrozenBy = view.Frozen.Operator
		}
		if d := view.Descriptor; d != nil {
			told.Epoch, told.Generation = d.Epoch, d.Generation
		}
		reply.Replicas = append(reply.Replicas, told)
	}
	if len(req.Shards) == 0 {
		s.node.host.Each(add)
	}
	for _, id := range req.Shards {
		if shard.ID(id) == shard.MetaID && s.node.meta.runs() {
			reply.Replicas = append(reply.Replicas, s.node.meta.report())
		}
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
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	reply := &routerpb.DirectReply{}
	switch err := s.carryOut(ctx, req, reply); {
	case errors.Is(err, replica.ErrDeclined):
		return nil, status.Error(codes.Aborted, err.Error()) // heir.Succeed knows it by that
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return reply, nil
}

func (s *peerServer) carryOut(ctx context.Context, req *routerpb.DirectRequest, reply *routerpb.DirectReply) error {
	if shard.ID(req.Shard) == shard.MetaID && s.node.meta.runs() {
		return s.node.meta.obey(ctx, req)
	}
	r, ok := s.node.host.Replica(shard.ID(req.Shard))
	if !ok {
		return fmt.Errorf("node %q runs no replica of shard %d", s.node.cfg.Name, req.Shard)
	}
	return s.obey(ctx, r, req, reply)
}

func (s *peerServer) obey(ctx context.Context, r *replica.Replica, req *routerpb.DirectRequest, reply *routerpb.DirectReply) (err error) {
	switch o := req.Order.(type) {
	case *routerpb.DirectRequest_CatchUp:
		if err := isReplica(r, o.CatchUp.Replica); err != nil {
			return err
		}
		return r.CatchUp(ctx)
	case *routerpb.DirectRequest_Succeed:
		if err := isReplica(r, o.Succeed.Replica); err != nil {
			return err
		}
		return r.Succeed(ctx, replica.Handover{Term: o.Succeed.Term, Applied: o.Succeed.Applied, Last: o.Succeed.Last})
	case *routerpb.DirectRequest_Quarantine:
		if err := isReplica(r, o.Quarantine.Replica); err != nil {
			return err
		}
		defer s.node.agent.poke() // it must not lead
		return r.Quarantine(o.Quarantine.Why)
	case *routerpb.DirectRequest_Brace:
		return r.Brace(o.Brace.Durably)
	case *routerpb.DirectRequest_LeaveSeed:
		return r.LeaveSeed(ctx, shard.DescriptorOf(o.LeaveSeed))
	case *routerpb.DirectRequest_SecureSeed:
		return r.SecureSeed(ctx, shard.DescriptorOf(o.SecureSeed))
	case *routerpb.DirectRequest_Wean:
		return r.Wean(ctx, o.Wean.Epoch)
	case *routerpb.DirectRequest_SecureFrozen:
		return s.node.secureFrozen(ctx, r, o.SecureFrozen.OperatorId)
	}
	if !r.Leads() {
		return &shard.NotLeaderError{Shard: r.ID(), Leader: r.LeaderNode()}
	}
	switch o := req.Order.(type) {
	case *routerpb.DirectRequest_Transfer:
		return s.node.transfer(ctx, r, shard.ReplicaID(o.Transfer.Replica))
	case *routerpb.DirectRequest_Split:
		return s.node.divide(ctx, r, shard.DescriptorOf(o.Split.Descriptor_), shard.DescriptorOf(o.Split.Child))
	case *routerpb.DirectRequest_Freeze:
		into, right := mergeOf(o.Freeze)
		return r.Freeze(ctx, into, right, o.Freeze.OperatorId)
	case *routerpb.DirectRequest_Subsume:
		into, right := mergeOf(o.Subsume)
		return r.Subsume(ctx, into, right, o.Subsume.OperatorId)
	case *routerpb.DirectRequest_Initialise:
		return r.Initialise(ctx, shard.DescriptorOf(o.Initialise))
	case *routerpb.DirectRequest_Check:
		reply.Index, err = r.SumUp(ctx)
		return err
	default:
		return obeyMembers(ctx, r.Members, req)
	}
}

// obeyMembers carries out orders that a group's leader is given about its members.
func obeyMembers(ctx context.Context, members replica.Members, req *routerpb.DirectRequest) error {
	switch o := req.Order.(type) {
	case *routerpb.DirectRequest_AddLearner:
		return members.AddLearner(ctx, shard.ReplicaID(o.AddLearner.Replica), o.AddLearner.PeerAddr)
	case *routerpb.DirectRequest_Promote:
		return members.Promote(ctx, shard.ReplicaID(o.Promote.Replica), o.Promote.PeerAddr)
	case *routerpb.DirectRequest_Remove:
		return members.Dismiss(ctx, shard.ReplicaID(o.Remove.Replica))
	default:
		return status.Errorf(codes.Unimplemented, "this version knows no order %T", o)
	}
}

// isReplica refuses an order for another replica of the shard than the one that runs here.
func isReplica(r *replica.Replica, id uint64) error {
	if r.ReplicaID() != shard.ReplicaID(id) {
		return status.Errorf(codes.FailedPrecondition, "shard %s runs as replica %d here, not as %d", r.ID(), r.ReplicaID(), id)
	}
	return nil
}

func mergeOf(p *routerpb.Merge) (into, right *shard.Descriptor) {
	return shard.DescriptorOf(p.Descriptor_), shard.DescriptorOf(p.Right)
}
