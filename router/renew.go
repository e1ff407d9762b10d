package router

import (
	"context"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// These stand for the TTLs of leases that a native client's request has not kept alive.
const (
	// LeaseForbidden is that of a lease that the client may not keep alive.
	LeaseForbidden = -2
	// LeaseUnknown is that of a lease of which that is not known now, as a shard with its keys does not answer. Trying again may help.
	LeaseUnknown = -3
)

// RenewalsMax bounds the leases of one request, except for those that arrived together.
const RenewalsMax = 4096

// renewer lets the keepalives of all clients share requests to the homes of their leases: one
// request per home is in flight, and keepalives that arrive meanwhile share the next. So the cost
// of a keepalive, in frames between nodes and read barriers, falls with their number.
type renewer struct {
	ask askHome

	// ctx ends with stop; runs are the goroutines of run.
	ctx    context.Context
	cancel context.CancelFunc
	runs   sync.WaitGroup

	mu struct {
		sync.Mutex
		waiting map[renewalKey][]*renewal // without an entry, nothing is in flight either
	}
}

// renewalKey includes the node, so that nobody waits for a node that turned out not to lead.
type renewalKey struct {
	id    shard.ID
	epoch uint64
	node  shard.NodeID
}

// renewal is a group of leases that have the same home.
type renewal struct {
	key    renewalKey
	at     Place
	leases []int64
	places []int   // of the leases, in what the caller asked for
	ttls   []int64 // set before nil is sent
	done   chan error
}

// askHome is Router.ask.
type askHome func(ctx context.Context, p Place, node shard.NodeID, op routerpb.Op, q *routerpb.LeaseQuery) (*routerpb.LeaseStatus, error)

func newRenewer(ask askHome) *renewer {
	n := &renewer{ask: ask}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.waiting = make(map[renewalKey][]*renewal)
	return n
}

// stop ends the requests in flight and waits for them. Later callers get shard.ErrStopped.
func (n *renewer) stop() {
	n.mu.Lock()
	n.cancel()
	n.mu.Unlock()
	n.runs.Wait()
}

// begin starts the renewal of leases. The outcome is sent to done, which must have room for it.
func (n *renewer) begin(r *renewal) {
	r.done = make(chan error, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		r.done <- shard.ErrStopped
		return
	}
	waiting, running := n.mu.waiting[r.key]
	n.mu.waiting[r.key] = append(waiting, r)
	if !running {
		n.runs.Go(func() { n.run(r.key, r.at) })
	}
}

// run sends requests until no renewals wait. Each has its own deadline: a caller that leaves does
// not fail the others.
func (n *renewer) run(key renewalKey, p Place) {
	for {
		batch, q := n.next(key)
		if len(batch) == 0 {
			return
		}
		ctx, cancel := bounded(n.ctx)
		status, err := n.ask(ctx, p, key.node, routerpb.Op_OP_LEASE_KEEPALIVE, q)
		cancel()
		ttls := status.GetTtls()
		if err == nil && len(ttls) != len(q.Leases) { // a native client may ask nodes of another version
			err = fmt.Errorf("renew %d leases: there are answers for %d: %w", len(q.Leases), len(ttls), shard.ErrUnavailable)
		}
		for _, r := range batch {
			if err == nil {
				r.ttls, ttls = ttls[:len(r.leases)], ttls[len(r.leases):]
			}
			r.done <- err
		}
	}
}

// next takes the keepalives that share the next request; if there are none, the run ends.
func (n *renewer) next(key renewalKey) ([]*renewal, *routerpb.LeaseQuery) {
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting := n.mu.waiting[key]
	q := &routerpb.LeaseQuery{}
	count := 0
	for count < len(waiting) && len(q.Leases) < RenewalsMax {
		q.Leases = append(q.Leases, waiting[count].leases...)
		count++
	}
	if count == 0 {
		delete(n.mu.waiting, key)
	} else {
		n.mu.waiting[key] = waiting[count:]
	}
	return waiting[:count:count], q
}

// KeepAlive renews leases and returns the TTL of each: 0 for one that is unknown or has expired.
// They share one header.
func (r *Router) KeepAlive(ctx context.Context, leases []int64) (ttls []int64, head *pb.ResponseHeader, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	head = r.seen(0) // before the renewal, as in etcd: it covers nothing that came after
	ttls = make([]int64, len(leases))
	left := make([]int, len(leases))
	for i := range leases {
		left[i] = i
	}
	err = r.retrying(ctx, func(n int) error {
		renewals, err := r.atHomes(ctx, n, leases, left)
		if err != nil {
			return err
		}
		for _, renewal := range renewals {
			r.renewer.begin(renewal)
		}
		left = nil
		for _, renewal := range renewals {
			select {
			case failed := <-renewal.done:
				if failed != nil {
					left = append(left, renewal.places...)
					if err == nil || !certain(failed) {
						err = failed
					}
					continue
				}
				for k, i := range renewal.places {
					if ttls[i] = renewal.ttls[k]; ttls[i] != LeaseUnknown {
						continue
					}
					left = append(left, i)
					if err == nil {
						err = fmt.Errorf("the node cannot tell who may renew lease %x, as a shard with its keys does not answer: %w", leases[i], shard.ErrUnavailable)
					}
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return err
	})
	return ttls, head, err
}

// atHomes divides the leases at the given positions of the list by their homes.
func (r *Router) atHomes(ctx context.Context, n int, leases []int64, places []int) ([]*renewal, error) {
	var renewals []*renewal
next:
	for _, i := range places {
		home := shard.HomeKey(leases[i])
		for _, known := range renewals { // few
			if known.at.Span.Contains(home) {
				known.leases, known.places = append(known.leases, leases[i]), append(known.places, i)
				continue next
			}
		}
		p, err := r.cfg.Cache.Lookup(ctx, home)
		if err != nil {
			return nil, err
		}
		renewals = append(renewals, &renewal{
			key: renewalKey{p.ID, p.Epoch, r.writer(p, n)}, at: p, leases: []int64{leases[i]}, places: []int{i},
		})
	}
	return renewals, nil
}
