package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// leaseServer is etcd's Lease service.
type leaseServer struct {
	pb.UnsafeLeaseServer
	*Server
}

func (s *leaseServer) LeaseGrant(ctx context.Context, req *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	resp, err := s.leases.Grant(ctx, req)
	if err != nil {
		return nil, writeError(err)
	}
	s.leased.granted.Inc()
	s.fill(resp.Header)
	return resp, nil
}

func (s *leaseServer) LeaseRevoke(ctx context.Context, req *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	resp, err := s.leases.Revoke(ctx, req)
	if err != nil {
		return nil, writeError(err)
	}
	s.leased.revoked.Inc()
	s.fill(resp.Header)
	return resp, nil
}

func (s *leaseServer) LeaseTimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	resp, err := s.leases.TimeToLive(ctx, req)
	if err != nil {
		return nil, readError(ctx, err)
	}
	s.fill(resp.Header)
	return resp, nil
}

func (s *leaseServer) LeaseLeases(ctx context.Context, req *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	resp, err := s.leases.Leases(ctx, req)
	if err != nil {
		return nil, readError(ctx, err)
	}
	s.fill(resp.Header)
	return resp, nil
}
