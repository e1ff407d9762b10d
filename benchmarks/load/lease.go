package load

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseTTL in seconds exceeds a run's duration, so that none expires.
const leaseTTL = 3600

// leaseGrant makes leases, which stay.
type leaseGrant struct{}

func (leaseGrant) Name() string                        { return "lease-grant" }
func (leaseGrant) About() string                       { return "grant a lease" }
func (leaseGrant) Clients(want int) int                { return want }
func (leaseGrant) Prepare(context.Context, *Env) error { return nil }

func (leaseGrant) Client(e *Env, i int) Operation {
	conn := e.Conn(i)
	return func(ctx context.Context) error {
		_, err := conn.Grant(ctx, leaseTTL)
		return err
	}
}

// leaseKeepAlive renews many leases. Each connection has one stream, as clientv3 has,
// on which all its clients send without waiting for each other.
type leaseKeepAlive struct{}

func (leaseKeepAlive) Name() string { return "lease-keepalive" }
func (leaseKeepAlive) About() string {
	return "renew leases, pipelined on a stream for each connection"
}
func (leaseKeepAlive) Clients(want int) int { return want }

// Measure implements Workload.
func (w leaseKeepAlive) Measure(ctx context.Context, e *Env, p Plan) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leases := make([]int64, e.Leases)
	if err := e.each(ctx, len(leases), func(ctx context.Context, conn *clientv3.Client, i int) error {
		resp, err := conn.Grant(ctx, leaseTTL)
		if err != nil {
			return fmt.Errorf("grant lease %d of %d: %w", i, len(leases), err)
		}
		leases[i] = int64(resp.ID)
		return nil
	}); err != nil {
		return Result{}, err
	}
	streams := make([]*renewals, len(e.Conns))
	for i, conn := range e.Conns {
		stream, err := pb.NewLeaseClient(conn.ActiveConnection()).LeaseKeepAlive(ctx)
		if err != nil {
			return Result{}, fmt.Errorf("open keepalive stream %d: %w", i, err)
		}
		streams[i] = newRenewals(stream)
	}
	// No two clients may wait for the same lease, so there are no more than leases.
	clients := min(p.Clients, len(leases))
	return runClients(ctx, p, clients, operationTimeout, func(i int) Operation {
		stream, next := streams[i%len(streams)], i
		return func(ctx context.Context) error {
			id := leases[next]
			if next += clients; next >= len(leases) {
				next = i
			}
			return stream.renew(ctx, id)
		}
	})
}

// renewals is a keepalive stream that many clients share.
type renewals struct {
	stream pb.Lease_LeaseKeepAliveClient
	send   sync.Mutex // a stream takes one Send at a time

	mu struct {
		sync.Mutex
		waiting map[int64]chan<- *pb.LeaseKeepAliveResponse
		err     error // the stream has ended
	}
}

func newRenewals(stream pb.Lease_LeaseKeepAliveClient) *renewals {
	r := &renewals{stream: stream}
	r.mu.waiting = make(map[int64]chan<- *pb.LeaseKeepAliveResponse)
	go r.receive()
	return r
}

// receive gives each answer to who waits for it. When the stream ends, nobody is left
// waiting.
func (r *renewals) receive() {
	for {
		resp, err := r.stream.Recv()
		r.mu.Lock()
		if err != nil {
			r.mu.err = err
			for _, ch := range r.mu.waiting {
				close(ch)
			}
			clear(r.mu.waiting)
			r.mu.Unlock()
			return
		}
		if ch, ok := r.mu.waiting[resp.ID]; ok {
			ch <- resp
			delete(r.mu.waiting, resp.ID)
		}
		r.mu.Unlock()
	}
}

var errLeaseGone = errors.New("keepalive: the lease is gone")

// renew sends one keepalive and waits for its answer.
func (r *renewals) renew(ctx context.Context, id int64) error {
	answer := make(chan *pb.LeaseKeepAliveResponse, 1) // receive never waits
	r.mu.Lock()
	if err := r.mu.err; err != nil {
		r.mu.Unlock()
		return err
	}
	r.mu.waiting[id] = answer
	r.mu.Unlock()
	r.send.Lock()
	err := r.stream.Send(&pb.LeaseKeepAliveRequest{ID: id})
	r.send.Unlock()
	if err != nil {
		return err
	}
	select {
	case resp, ok := <-answer:
		if !ok {
			return r.ended()
		}
		if resp.TTL <= 0 {
			return errLeaseGone
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *renewals) ended() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.err
}
