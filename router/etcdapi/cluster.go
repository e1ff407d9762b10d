package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// clusterServer is etcd's Cluster service. Nodes join and leave by Flotilla's own
// means, so only the list is served.
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

func (s *clusterServer) MemberAdd(context.Context, *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	return nil, unimplemented("Cluster.MemberAdd")
}

func (s *clusterServer) MemberRemove(context.Context, *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	return nil, unimplemented("Cluster.MemberRemove")
}

func (s *clusterServer) MemberUpdate(context.Context, *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	return nil, unimplemented("Cluster.MemberUpdate")
}

func (s *clusterServer) MemberPromote(context.Context, *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	return nil, unimplemented("Cluster.MemberPromote")
}
