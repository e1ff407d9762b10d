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
	// keeperPause is the pause after a look that found nothing. Leases end late by up to this much.
	keeperPause = 100 * time.Millisecond
	// keeperBeat and keeperBurst bound how many leases a node revokes: 1,000 a second, as in etcd.
	// When very many expire at once, clients' own requests still proceed.
	keeperBeat  = 10 * time.Millisecond
	keeperBurst = 10
	// keeperFlights bounds the revocations in flight that are the first of their leases, and which take a second at most;
	// keeperRepeats those of leases that others were begun for, which may take longer. So shards that do not answer do
	// not delay the others.
	keeperFlights, keeperRepeats = 64, 64
)

// keeper revokes expired leases of all shards that this node leads, and completes revocations that
// were left unfinished. It has no state: a shard's leader knows what is due, and returns it again
// after a failed attempt, whose steps are idempotent.
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

// run works until ctx ends, which also ends revocations in flight.
func (k *keeper) run(ctx context.Context) {
	flights, repeats := make(chan struct{}, keeperFlights), make(chan struct{}, keeperRepeats)
	var work sync.WaitGroup
	defer work.Wait()
	pause := keeperPause
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		// Only as many as can start now: any others would not be returned again soon.
		due := k.due(min(keeperBurst, cap(flights)-len(flights)))
		for _, d := range due {
			slots := flights
			if d.Again {
				slots = repeats
			}
			select {
			case slots <- struct{}{}:
			default: // so many others do not come to an end that this one can wait
				continue
			}
			work.Go(func() {
				defer func() { <-slots }()
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
	ctx, cancel := context.WithTimeout(ctx, d.Patience)
	defer cancel()
	switch err := k.expire(ctx, d.ID, d.Incarnation, d.Reign); {
	case err == nil:
		k.expired.Inc()
	case errors.Is(err, shard.ErrLeaseRace):
		// Another leader measures it now, or its ID belongs to another lease by now.
	default:
		k.log.Debug("ending a lease", "lease", d.ID, "error", err)
	}
}

// dueLeases asks the shards that this node leads in turn.
type dueLeases struct {
	host *replica.Host
	turn int
}

// next returns up to limit leases. Each time it starts with another shard, so that one with very
// many due leases does not delay the others.
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
