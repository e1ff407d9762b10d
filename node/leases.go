package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/lease"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

const (
	// keeperPause is how long the keeper waits after a look that found nothing: leases end
	// that much late.
	keeperPause = 100 * time.Millisecond
	// keeperBeat and keeperBurst bound how many leases a node ends: 1,000 a second, as etcd.
	// When very many expire at once, clients' own requests still go on.
	keeperBeat  = 10 * time.Millisecond
	keeperBurst = 10
	// keeperFlights bounds how many are being ended at a time.
	keeperFlights = 64
	// keeperPatience bounds each, so that a shard that does not answer holds up the others
	// for no longer.
	keeperPatience = time.Second
)

// keeper ends the leases that have expired, of all shards that this node leads, and
// finishes revocations that whoever began them has left. It keeps no books: a shard's
// leader knows what is due, and names it again a second after an attempt that failed: what
// was done of it is not done again.
type keeper struct {
	due    func(limit int) []lease.Due
	expire func(ctx context.Context, id, incarnation int64, reign uint64) error
	log    *slog.Logger

	expired prometheus.Counter
}

func newKeeper(n *Node) *keeper {
	k := &keeper{
		due: (&dueLeases{host: n.host}).next, expire: n.router.Expire, log: n.log,
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "etcd_server_lease_expired_total",
			Help: "Leases that expired and were revoked by this node, as the leader of their shards. Bursts: clients are gone, or cannot reach their leaders in time.",
		}),
	}
	n.cfg.Registerer.MustRegister(k.expired)
	return k
}

// run works until ctx ends, which also ends what is under way.
func (k *keeper) run(ctx context.Context) {
	flights := make(chan struct{}, keeperFlights)
	var work sync.WaitGroup
	defer work.Wait()
	pause := keeperPause
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		// What could not be begun now is not asked for: it would not be named again at once.
		due := k.due(min(keeperBurst, cap(flights)-len(flights)))
		for _, d := range due {
			flights <- struct{}{}
			work.Go(func() {
				defer func() { <-flights }()
				k.end(ctx, d)
			})
		}
		pause = keeperPause
		if len(due) > 0 {
			pause = keeperBeat
		}
	}
}

func (k *keeper) end(ctx context.Context, d lease.Due) {
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	switch err := k.expire(ctx, d.ID, d.Incarnation, d.Reign); {
	case err == nil:
		k.expired.Inc()
	case errors.Is(err, shard.ErrLeaseRace):
		// Another leader measures it anew, or it is another lease by now.
	default:
		k.log.Debug("ending a lease", "lease", d.ID, "error", err)
	}
}

// dueLeases asks the shards that this node leads in turn.
type dueLeases struct {
	host *replica.Host
	turn int
}

// next names up to limit leases. Each time another shard is asked first, so that one in
// which very many are due does not keep the others waiting.
func (l *dueLeases) next(limit int) []lease.Due {
	var replicas []*replica.Replica
	l.host.Each(func(r *replica.Replica) { replicas = append(replicas, r) })
	l.turn++
	var due []lease.Due
	for i := range replicas {
		if len(due) == limit {
			break
		}
		r := replicas[(l.turn+i)%len(replicas)]
		due = append(due, r.DueLeases(limit-len(due))...)
	}
	return due
}
