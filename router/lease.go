package router

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// leaseTTLMax is etcd's, in seconds.
const leaseTTLMax = 9_000_000_000

// leaseTTLMin is the shortest TTL in seconds, as in etcd: a holder must be able to renew despite
// one election.
func (r *Router) leaseTTLMin() int64 {
	return int64(math.Ceil((r.cfg.ElectionTimeout * 3 / 2).Seconds()))
}

// Grant creates a lease. A lease without an ID gets one; a TTL below the minimum is raised. It is
// not retried when its outcome is unknown, because the retry would find that the lease exists.
func (r *Router) Grant(ctx context.Context, req *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if req.TTL > leaseTTLMax {
		return nil, rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	ttl := max(req.TTL, r.leaseTTLMin())
	for {
		id := req.ID
		if id == 0 {
			id = 1 + rand.Int64N(math.MaxInt64)
		}
		cmd, err := command(shardpb.Kind_LEASE_GRANT, &shardpb.LeaseCommand{Lease: id, Ttl: ttl}, true)
		if err != nil {
			return nil, err
		}
		reply, err := r.write(ctx, shard.HomeKey(id), cmd)
		switch {
		case errors.Is(err, shard.ErrLeaseExists) && req.ID == 0: // drawn twice
			continue
		case err != nil:
			return nil, err
		}
		return &pb.LeaseGrantResponse{Header: r.seen(reply.Rev), ID: id, TTL: reply.Message.(*shardpb.LeaseAnswer).Ttl}, nil
	}
}

// TimeToLive returns the remaining time of a lease and, on request, its attached keys in key order.
// An unknown lease has TTL -1.
func (r *Router) TimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	status, err := r.askHome(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	resp := &pb.LeaseTimeToLiveResponse{ID: req.ID, TTL: status.Ttl, GrantedTTL: status.GrantedTtl}
	if req.Keys {
		if resp.Keys, err = r.leaseKeys(ctx, req.ID, spansOf(status.Spans)); err != nil {
			return nil, err
		}
	}
	resp.Header = r.seen(0)
	return resp, nil
}

// Leases lists all leases, the first to expire first.
func (r *Router) Leases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	all, err := r.living(ctx)
	if err != nil {
		return nil, err
	}
	// Each home has returned its leases in order; between homes, seconds decide.
	slices.SortStableFunc(all, func(a, b *routerpb.LeaseStatus) int { return cmp.Compare(a.Ttl, b.Ttl) })
	resp := &pb.LeaseLeasesResponse{Header: r.seen(0), Leases: make([]*pb.LeaseStatus, len(all))}
	for i, lease := range all {
		resp.Leases[i] = &pb.LeaseStatus{ID: lease.Lease}
	}
	return resp, nil
}

// LeaseTTLs returns all leases with the TTLs that they were granted, in seconds.
func (r *Router) LeaseTTLs(ctx context.Context) (map[int64]int64, error) {
	all, err := r.living(ctx)
	if err != nil {
		return nil, err
	}
	ttls := make(map[int64]int64, len(all))
	for _, lease := range all {
		ttls[lease.Lease] = lease.GrantedTtl
	}
	return ttls, nil
}

// living asks all homes for the leases that have not expired.
func (r *Router) living(ctx context.Context) ([]*routerpb.LeaseStatus, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var mu sync.Mutex
	var all []*routerpb.LeaseStatus
	err := r.everywhere(ctx, []shard.Span{shard.Everything()}, func(p Place, n int, part shard.Span) error {
		status, err := r.ask(ctx, p, r.writer(p, n), routerpb.Op_OP_LEASE_LIST, &routerpb.LeaseQuery{})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, lease := range status.Leases {
			if part.Contains(shard.HomeKey(lease.Lease)) {
				all = append(all, lease)
			}
		}
		return nil
	})
	return all, err
}

// leaseKeys collects the keys attached to a lease within spans.
func (r *Router) leaseKeys(ctx context.Context, lease int64, spans []shard.Span) ([][]byte, error) {
	var mu sync.Mutex
	var keys [][]byte
	err := r.everywhere(ctx, spans, func(p Place, n int, part shard.Span) error {
		status, err := r.ask(ctx, p, r.reader(p, n), routerpb.Op_OP_LEASE_KEYS, &routerpb.LeaseQuery{Lease: lease})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, key := range status.Keys {
			if part.Contains(key) {
				keys = append(keys, key)
			}
		}
		return nil
	})
	slices.SortFunc(keys, bytes.Compare)
	return keys, err
}

// askHome asks the leader of the lease's home, which alone knows its remaining time.
func (r *Router) askHome(ctx context.Context, lease int64) (*routerpb.LeaseStatus, error) {
	var status *routerpb.LeaseStatus
	err := r.retrying(ctx, func(n int) error {
		p, err := r.cfg.Cache.Lookup(ctx, shard.HomeKey(lease))
		if err != nil {
			return err
		}
		status, err = r.ask(ctx, p, r.writer(p, n), routerpb.Op_OP_LEASE_TTL, &routerpb.LeaseQuery{Lease: lease})
		return err
	})
	return status, err
}

func (r *Router) ask(ctx context.Context, p Place, node shard.NodeID, op routerpb.Op, q *routerpb.LeaseQuery) (*routerpb.LeaseStatus, error) {
	reply, err := r.send(ctx, p, node, &Request{Op: op, Message: q})
	if err != nil {
		return nil, err
	}
	return reply.Message.(*routerpb.LeaseStatus), nil
}

// seen is the header of an answer that concerns no key: the largest revision that this process has
// seen, or rev.
func (r *Router) seen(rev shard.Revision) *pb.ResponseHeader {
	return header(max(rev, r.cfg.Revisions.Seen(), shard.FirstRevision))
}

func spansOf(in []*shardpb.Span) []shard.Span {
	out := make([]shard.Span, len(in))
	for i, s := range in {
		out[i] = shard.Span{Start: s.Start, End: s.End}
	}
	return out
}

func spanProto(s shard.Span) *shardpb.Span { return &shardpb.Span{Start: s.Start, End: s.End} }
