package etcdapi

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// clusterServer is etcd's Cluster service. Nodes join by Flotilla's own means; an RPC without a
// meaning here is refused with what to do instead.
type clusterServer struct {
	pb.UnsafeClusterServer
	*Server
}

func (s *clusterServer) MemberList(ctx context.Context, req *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	members, err := s.cluster.Members(ctx, req.Linearizable)
	if err != nil {
		return nil, readError(ctx, err)
	}
	// As in etcd, membership has no revision.
	return &pb.MemberListResponse{Header: s.header(0), Members: members}, nil
}

// MemberAdd is refused: nodes need not be announced before they join.
func (s *clusterServer) MemberAdd(ctx context.Context, req *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	if _, err := types.NewURLs(req.PeerURLs); err != nil {
		return nil, rpctypes.ErrGRPCMemberBadURLs
	}
	members, err := s.cluster.Members(ctx, true)
	if err != nil {
		return nil, writeError(err)
	}
	for _, m := range members {
		if slices.ContainsFunc(m.PeerURLs, func(u string) bool { return slices.Contains(req.PeerURLs, u) }) {
			return nil, rpctypes.ErrGRPCPeerURLExist
		}
	}
	return nil, status.Error(codes.FailedPrecondition, "flotilla: a node joins by being started, and is not announced before; flotilla node join prints the command")
}

func (s *clusterServer) MemberRemove(ctx context.Context, req *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	if err := s.cluster.RemoveMember(ctx, req.ID); err != nil {
		return nil, writeError(err)
	}
	members, err := s.cluster.Members(ctx, true)
	if err != nil {
		return nil, writeError(err)
	}
	return &pb.MemberRemoveResponse{Header: s.header(0), Members: members}, nil
}

// MemberUpdate changes nothing: a member's peer address never changes.
func (s *clusterServer) MemberUpdate(ctx context.Context, req *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	members, m, err := s.member(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(m.PeerURLs, req.PeerURLs) {
		return nil, status.Errorf(codes.FailedPrecondition,
			"flotilla: the peer address of a node never changes; start another one at the new address, then flotilla node decommission %s and flotilla node remove %s", m.Name, m.Name)
	}
	return &pb.MemberUpdateResponse{Header: s.header(0), Members: members}, nil
}

// MemberPromote is refused: only replicas can be learners, not nodes, and they are promoted
// automatically.
func (s *clusterServer) MemberPromote(ctx context.Context, req *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	if _, _, err := s.member(ctx, req.ID); err != nil {
		return nil, err
	}
	return nil, rpctypes.ErrGRPCMemberNotLearner
}

// member returns all members and the requested one.
func (s *clusterServer) member(ctx context.Context, id uint64) ([]*pb.Member, *pb.Member, error) {
	members, err := s.cluster.Members(ctx, true)
	if err != nil {
		return nil, nil, writeError(err)
	}
	i := slices.IndexFunc(members, func(m *pb.Member) bool { return m.ID == id })
	if i < 0 {
		return nil, nil, rpctypes.ErrGRPCMemberNotFound
	}
	return members, members[i], nil
}
