package router

import (
	"context"
	"sync"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// renewalsMax bounds the renewals of one request.
const renewalsMax = 4096

// renewer lets the keepalives of all clients share requests to the homes of their leases:
// one is under way to each, and who comes meanwhile shares the next. So what a keepalive
// costs, of frames between nodes and read barriers, falls as there are more.
type renewer struct {
	ask askHome

	// ctx ends with stop; runs are the goroutines of run.
	ctx    context.Context
	cancel context.CancelFunc
	runs   sync.WaitGroup

	mu struct {
		sync.Mutex
		waiting map[renewalKey][]renewal // no entry: nothing is under way either
	}
}

// renewalKey has the node, so that nobody waits for one that has been found not to lead.
type renewalKey struct {
	id    shard.ID
	epoch uint64
	node  shard.NodeID
}

// renewal is a lease and who waits for its TTL.
type renewal struct {
	lease int64
	done  chan renewed // takes one without waiting
}

type renewed struct {
	ttl int64
	err error
}

// askHome is Router.ask.
type askHome func(ctx context.Context, p Place, node shard.NodeID, op routerpb.Op, q *routerpb.LeaseQuery) (*routerpb.LeaseStatus, error)

func newRenewer(ask askHome) *renewer {
	n := &renewer{ask: ask}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.waiting = make(map[renewalKey][]renewal)
	return n
}

// stop ends what is under way and waits for it. Nothing may be begun any more.
func (n *renewer) stop() {
	n.cancel()
	n.runs.Wait()
}

// renew renews a lease whose home is the shard at p and returns its TTL.
func (n *renewer) renew(ctx context.Context, p Place, node shard.NodeID, lease int64) (int64, error) {
	key := renewalKey{p.ID, p.Epoch, node}
	mine := renewal{lease, make(chan renewed, 1)}
	n.mu.Lock()
	waiting, running := n.mu.waiting[key]
	n.mu.waiting[key] = append(waiting, mine)
	n.mu.Unlock()
	if !running {
		n.runs.Go(func() { n.run(key, p) })
	}
	select {
	case done := <-mine.done:
		return done.ttl, done.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// run sends requests until nobody waits. Each has its own deadline: a caller that leaves
// does not fail the others.
func (n *renewer) run(key renewalKey, p Place) {
	for {
		batch := n.next(key)
		if len(batch) == 0 {
			return
		}
		q := &routerpb.LeaseQuery{Leases: make([]int64, len(batch))}
		for i, b := range batch {
			q.Leases[i] = b.lease
		}
		ctx, cancel := bounded(n.ctx)
		status, err := n.ask(ctx, p, key.node, routerpb.Op_OP_LEASE_KEEPALIVE, q)
		cancel()
		for i, b := range batch {
			if err != nil {
				b.done <- renewed{err: err}
			} else {
				b.done <- renewed{ttl: status.Ttls[i]}
			}
		}
	}
}

// next takes those that share the next request; none ends the running.
func (n *renewer) next(key renewalKey) []renewal {
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting := n.mu.waiting[key]
	if len(waiting) == 0 {
		delete(n.mu.waiting, key)
		return nil
	}
	count := min(len(waiting), renewalsMax)
	n.mu.waiting[key] = waiting[count:]
	return waiting[:count:count]
}
