package robustness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// lessee is a client that holds leases, one after the other.
type lessee struct {
	session
	leases leaseCaller
	ttl    Between
	rng    *rand.Rand
	keys   []string
	serial int64
}

// run holds leases until the context ends. Leases that are held then are left to expire.
func (l *lessee) run(ctx context.Context) {
	for ctx.Err() == nil {
		l.serial++
		id := int64(l.client)<<32 | l.serial
		ttl, ok := l.leases.grant(ctx, id, l.ttl.pick(l.rng).Truncate(time.Second))
		if ok {
			l.attach(ctx, id, 1+l.rng.IntN(4))
			l.hold(ctx, id, ttl)
		}
		if wait(ctx, between(l.rng, 0, 200*time.Millisecond)) != nil {
			return
		}
	}
}

// hold renews a lease some times, and then revokes or forgets it.
func (l *lessee) hold(ctx context.Context, id int64, ttl time.Duration) {
	for range l.rng.IntN(5) {
		if wait(ctx, ttl/3) != nil {
			return
		}
		l.leases.renew(ctx, id)
		if l.rng.IntN(3) == 0 {
			l.attach(ctx, id, 1)
		}
	}
	switch l.rng.IntN(4) {
	case 0, 1:
		l.revoke(ctx, id)
	case 2:
		// A late renewal finds the lease gone, or comes just in time.
		if wait(ctx, between(l.rng, ttl-ttl/4, ttl+ttl/2)) == nil {
			l.attach(ctx, id, 1)
			l.leases.ask(ctx, id, false)
			l.leases.renew(ctx, id)
		}
	}
}

// revoke ends a lease while others attach keys to it, and repeats the revocation afterwards.
func (l *lessee) revoke(ctx context.Context, id int64) {
	var racing sync.WaitGroup
	for range 1 + l.rng.IntN(3) {
		req := history.Attach(l.key(), l.value(), id)
		racing.Go(func() { _, _ = l.ask(ctx, req) })
	}
	_ = wait(ctx, between(l.rng, 0, 10*time.Millisecond))
	l.leases.revoke(ctx, id)
	racing.Wait()
	l.attach(ctx, id, 1)
	_, _ = l.ask(ctx, history.Get(l.key(), 0))
}

// attach puts keys with a lease. Now and then it puts one without, which detaches the key.
func (l *lessee) attach(ctx context.Context, id int64, n int) {
	for range n {
		req := history.Attach(l.key(), l.value(), id)
		if l.rng.IntN(8) == 0 {
			req = history.Put(l.key(), l.value())
		}
		_, _ = l.ask(ctx, req) // recorded, whatever the outcome
	}
}

func (l *lessee) key() string { return l.keys[l.rng.IntN(len(l.keys))] }

func (l *lessee) value() string {
	l.serial++
	return fmt.Sprintf("c%d-%d", l.client, l.serial)
}

// leaseCaller sends each request about leases once, and records it.
type leaseCaller struct {
	client  int
	conn    *grpc.ClientConn
	rec     *history.Recorder
	timeout time.Duration
}

func (c leaseCaller) begin(ctx context.Context, kind history.LeaseCall, id int64, final bool) (context.Context, context.CancelFunc, *history.LeaseInvocation) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	return ctx, cancel, c.rec.InvokeLease(history.LeaseOp{Client: c.client, Kind: kind, Lease: id, Final: final})
}

func (c leaseCaller) grant(ctx context.Context, id int64, ttl time.Duration) (time.Duration, bool) {
	ctx, cancel, inv := c.begin(ctx, history.Grant, id, false)
	defer cancel()
	resp, err := pb.NewLeaseClient(c.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: int64(ttl.Seconds())})
	if err != nil {
		failed(inv, err)
		return 0, false
	}
	told := time.Duration(resp.TTL) * time.Second
	inv.OK(told)
	return told, true
}

func (c leaseCaller) renew(ctx context.Context, id int64) {
	ctx, cancel, inv := c.begin(ctx, history.Renew, id, false)
	defer cancel()
	stream, err := pb.NewLeaseClient(c.conn).LeaseKeepAlive(ctx)
	if err == nil {
		err = stream.Send(&pb.LeaseKeepAliveRequest{ID: id})
	}
	if err != nil {
		failed(inv, err)
		return
	}
	switch resp, err := stream.Recv(); {
	case err != nil:
		failed(inv, err)
	case resp.TTL <= 0:
		inv.Gone()
	default:
		inv.OK(time.Duration(resp.TTL) * time.Second)
	}
}

func (c leaseCaller) revoke(ctx context.Context, id int64) {
	ctx, cancel, inv := c.begin(ctx, history.Revoke, id, false)
	defer cancel()
	if _, err := pb.NewLeaseClient(c.conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id}); err != nil {
		failed(inv, err)
		return
	}
	inv.OK(0)
}

// ask reports whether the lease is certainly gone.
func (c leaseCaller) ask(ctx context.Context, id int64, final bool) bool {
	ctx, cancel, inv := c.begin(ctx, history.Ask, id, final)
	defer cancel()
	resp, err := pb.NewLeaseClient(c.conn).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
	switch {
	case err != nil:
		failed(inv, err)
	case resp.TTL <= 0 && resp.GrantedTTL == 0:
		// A lease that has expired but is not revoked yet has a granted time to live.
		inv.Gone()
		return true
	default:
		inv.OK(time.Duration(resp.TTL) * time.Second)
	}
	return false
}

func failed(inv *history.LeaseInvocation, err error) {
	err = rpctypes.Error(err)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		inv.Gone()
	case certain(err):
		inv.Failed(history.Refused, err)
	default:
		inv.Failed(history.Unknown, err)
	}
}
