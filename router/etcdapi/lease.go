package etcdapi

import (
	"context"
	"errors"
	"io"
	"sync"

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

// renewalsMax bounds the renewals that one stream has under way; what a client sends
// beyond them waits in the stream.
const renewalsMax = 256

// LeaseKeepAlive renews what a client asks for and answers in the order of its requests.
// The renewals themselves do not wait for each other: leases of other shards must not
// expire because one shard has no leader. As in etcd, the first that fails, and not for
// want of the lease, ends the stream.
func (s *leaseServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	requests, ended := receiveKeepAlives(ctx, stream)
	var under []chan renewal // in the order of the requests
	for requests != nil || len(under) > 0 {
		next, first := requests, chan renewal(nil)
		if len(under) >= renewalsMax {
			next = nil
		}
		if len(under) > 0 {
			first = under[0]
		}
		select {
		case req := <-next:
			done := make(chan renewal, 1)
			under = append(under, done)
			work.Go(func() { done <- s.renew(ctx, req) })
		case r := <-first:
			under = under[1:]
			if r.err != nil {
				return readError(stream.Context(), r.err)
			}
			if err := stream.Send(r.resp); err != nil {
				return err
			}
		case err := <-ended:
			if !errors.Is(err, io.EOF) {
				return err
			}
			requests, ended = nil, nil // the client has said all, and waits for the rest
		}
	}
	return nil
}

// receiveKeepAlives hands over what comes on the stream, and at last why nothing more does.
// It ends with ctx: a stream that its handler has left is not read any more.
func receiveKeepAlives(ctx context.Context, stream pb.Lease_LeaseKeepAliveServer) (<-chan *pb.LeaseKeepAliveRequest, <-chan error) {
	requests, ended := make(chan *pb.LeaseKeepAliveRequest), make(chan error, 1)
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, ended
}

type renewal struct {
	resp *pb.LeaseKeepAliveResponse
	err  error
}

func (s *leaseServer) renew(ctx context.Context, req *pb.LeaseKeepAliveRequest) renewal {
	resp, err := s.leases.KeepAlive(ctx, req)
	if err != nil {
		return renewal{err: err}
	}
	if resp.TTL > 0 {
		s.leased.renewed.Inc()
	}
	s.fill(resp.Header)
	return renewal{resp: resp}
}
