package exec

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard/replica"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// askHome answers a question about leases whose home the replica's shard is.
type askHome func(ctx context.Context, r *replica.Replica, q *routerpb.LeaseQuery) (*routerpb.LeaseStatus, error)

// atHome returns the function that answers the operation, nil if it is not a lease operation.
func atHome(op routerpb.Op) askHome {
	switch op {
	case routerpb.Op_OP_LEASE_KEEPALIVE:
		return keepAlive
	case routerpb.Op_OP_LEASE_TTL:
		return leaseTTL
	case routerpb.Op_OP_LEASE_LIST:
		return leaseList
	}
	return nil
}

// readHome asks a leader, which takes a read barrier of its own. The epoch is compared after it,
// because a shard with other keys is the home of other leases.
func (e *Executor) readHome(ctx context.Context, r *replica.Replica, req *router.Request, ask askHome) (*router.Reply, error) {
	status, err := ask(ctx, r, req.Message.(*routerpb.LeaseQuery))
	if err != nil {
		return nil, err
	}
	view := r.View()
	if !owns(view, req.Epoch) {
		return nil, wrongShard(r, view)
	}
	return &router.Reply{Rev: view.Rev, Floor: view.Floor, Compacted: view.Compacted, Message: status}, nil
}

// keepAlive answers a TTL of 0 for each lease that does not live.
func keepAlive(ctx context.Context, r *replica.Replica, q *routerpb.LeaseQuery) (*routerpb.LeaseStatus, error) {
	ttls, err := r.KeepAlive(ctx, q.Leases)
	if err != nil {
		return nil, err
	}
	return &routerpb.LeaseStatus{Ttls: ttls}, nil
}

// leaseTTL answers a TTL of -1 for a lease that does not live.
func leaseTTL(ctx context.Context, r *replica.Replica, q *routerpb.LeaseQuery) (*routerpb.LeaseStatus, error) {
	s, err := r.LeaseStatus(ctx, q.Lease)
	if err != nil {
		return nil, err
	}
	return leaseStatus(s), nil
}

func leaseList(ctx context.Context, r *replica.Replica, _ *routerpb.LeaseQuery) (*routerpb.LeaseStatus, error) {
	list, err := r.Leases(ctx)
	if err != nil {
		return nil, err
	}
	out := &routerpb.LeaseStatus{}
	for _, s := range list {
		out.Leases = append(out.Leases, leaseStatus(s))
	}
	return out, nil
}

func leaseKeys(r *replica.Replica, req *router.Request) (*routerpb.LeaseStatus, error) {
	id := req.Message.(*routerpb.LeaseQuery).Lease
	keys, err := r.LeaseKeys(id)
	if err != nil {
		return nil, err
	}
	return &routerpb.LeaseStatus{Lease: id, Keys: keys}, nil
}

// leaseStatus truncates to whole seconds, as etcd does.
func leaseStatus(s replica.LeaseStatus) *routerpb.LeaseStatus {
	out := &routerpb.LeaseStatus{Lease: s.ID, Ttl: -1, GrantedTtl: s.Granted}
	if s.TTL >= 0 {
		out.Ttl = int64(s.TTL / time.Second)
	}
	for _, span := range s.Spans {
		out.Spans = append(out.Spans, &shardpb.Span{Start: span.Start, End: span.End})
	}
	return out
}
