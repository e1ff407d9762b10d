package robustness_test

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// toyLease ends with the first request after its time.
type toyLease struct {
	ttl time.Duration
	due time.Time
}

// leasesLive reports whether the leases that puts name are there. It needs s.mu.
func (s *toyStore) leasesLive(ops []*pb.RequestOp) bool {
	return !slices.ContainsFunc(ops, func(op *pb.RequestOp) bool {
		id := op.GetRequestPut().GetLease()
		return id != 0 && s.leases[id] == nil && s.bug != "put to a dead lease"
	})
}

// expire ends the leases whose time is over. It needs s.mu.
func (s *toyStore) expire() {
	for id, l := range s.leases {
		if time.Now().After(l.due) {
			s.endLease(id)
		}
	}
}

// endLease deletes the keys of a lease, shard by shard. It needs s.mu.
func (s *toyStore) endLease(id int64) {
	delete(s.leases, id)
	for i := range s.shards {
		sh := &s.shards[i]
		var keys []string
		for key, versions := range sh.keys {
			if kv := toyAt(versions, sh.rev); kv != nil && kv.Lease == id {
				keys = append(keys, key)
			}
		}
		if s.bug == "key of a dead lease" && i%2 == 0 || len(keys) == 0 {
			continue
		}
		s.ticks++
		rev := s.mint(sh, s.ticks)
		for _, key := range keys {
			s.del(sh, []byte(key), rev)
		}
		if s.bug == "deleted twice" {
			rev++
			s.logChange(rev, &mvccpb.Event{Type: mvccpb.DELETE, Kv: &mvccpb.KeyValue{Key: []byte(keys[0]), ModRevision: int64(rev)}})
		}
		sh.rev, sh.floor = rev, max(sh.floor, rev)
	}
}

// LeaseGrant implements etcd's leases.
func (n *toyNode) LeaseGrant(_ context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	n.pass()
	n.store.mu.Lock()
	defer n.store.mu.Unlock()
	ttl := time.Duration(r.TTL) * time.Second
	n.store.leases[r.ID] = &toyLease{ttl: ttl}
	n.store.renew(n.store.leases[r.ID])
	return &pb.LeaseGrantResponse{Header: &pb.ResponseHeader{}, ID: r.ID, TTL: r.TTL}, nil
}

// renew needs s.mu.
func (s *toyStore) renew(l *toyLease) {
	l.due = time.Now().Add(l.ttl)
	if s.bug == "early expiry" {
		l.due = time.Now().Add(l.ttl / 2)
	}
}

// LeaseRevoke implements etcd's leases.
func (n *toyNode) LeaseRevoke(_ context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	n.pass()
	n.store.mu.Lock()
	defer n.store.mu.Unlock()
	if n.store.leases[r.ID] == nil {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	n.store.endLease(r.ID)
	return &pb.LeaseRevokeResponse{Header: &pb.ResponseHeader{}}, nil
}

// LeaseKeepAlive implements etcd's leases.
func (n *toyNode) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		n.pass()
		if err := stream.Send(&pb.LeaseKeepAliveResponse{Header: &pb.ResponseHeader{}, ID: r.ID, TTL: n.store.keepAlive(r.ID)}); err != nil {
			return err
		}
	}
}

func (s *toyStore) keepAlive(id int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	l := s.leases[id]
	if l == nil {
		return 0
	}
	s.renew(l)
	return int64(l.ttl.Seconds())
}

// LeaseTimeToLive implements etcd's leases.
func (n *toyNode) LeaseTimeToLive(_ context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	n.pass()
	n.store.mu.Lock()
	defer n.store.mu.Unlock()
	n.store.expire()
	l := n.store.leases[r.ID]
	if l == nil {
		return &pb.LeaseTimeToLiveResponse{Header: &pb.ResponseHeader{}, ID: r.ID, TTL: -1}, nil
	}
	ttl := int64(l.ttl.Seconds())
	return &pb.LeaseTimeToLiveResponse{Header: &pb.ResponseHeader{}, ID: r.ID, TTL: ttl, GrantedTTL: ttl}, nil
}
