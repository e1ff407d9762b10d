package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/lease"
)

// expiries is what a keeper is given to end, and how each attempt goes.
type expiries struct {
	mu    sync.Mutex
	queue []lease.Due
	under int
	most  int
	asked []int
	end   func(ctx context.Context, id int64) error
}

func (e *expiries) add(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for range n {
		e.queue = append(e.queue, lease.Due{ID: int64(len(e.queue) + 1), Incarnation: 5, Reign: 3, Patience: time.Second})
	}
}

func (e *expiries) due(limit int) []lease.Due {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, limit)
	n := min(limit, len(e.queue))
	out := e.queue[:n:n]
	e.queue = e.queue[n:]
	return out
}

func (e *expiries) expire(ctx context.Context, id, incarnation int64, reign uint64) error {
	e.mu.Lock()
	e.under++
	e.most = max(e.most, e.under)
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.under--
	}()
	if incarnation != 5 || reign != 3 {
		return errors.New("another lease than was named")
	}
	return e.end(ctx, id)
}

// keep runs a keeper for a time of the bubble and returns how many leases it ended.
func (e *expiries) keep(t *testing.T, during time.Duration) float64 {
	k := &keeper{due: e.due, expire: e.expire, log: slog.New(slog.DiscardHandler), expired: prometheus.NewCounter(prometheus.CounterOpts{Name: "n"})}
	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	k.run(ctx) // returns when all is over: the bubble would notice what is left
	registry := prometheus.NewRegistry()
	registry.MustRegister(k.expired)
	families, err := registry.Gather()
	require.NoError(t, err)
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// halfOfThemSilent are 200 leases, of which the shards of the first 100 do not answer.
func halfOfThemSilent() *expiries {
	e := &expiries{end: func(ctx context.Context, id int64) error {
		if id <= 100 {
			<-ctx.Done()
			return fmt.Errorf("no leader: %w", shard.ErrUnavailable)
		}
		return nil
	}}
	e.add(200)
	return e
}

func TestKeeperIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &expiries{end: func(context.Context, int64) error { return nil }}
		e.add(5000)
		ended := e.keep(t, 3*time.Second)
		require.InDelta(t, 3000, ended, 150, "1,000 a second")
	})
}

func TestKeeperLooksRarelyWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &expiries{}
		require.Zero(t, e.keep(t, 10*time.Second))
		require.LessOrEqual(t, len(e.asked), 100)
	})
}

// Shards that do not answer take up a bounded number of attempts, each for a bounded time;
// then others get their turn.
func TestKeeperAndAShardThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := halfOfThemSilent()
		require.EqualValues(t, 100, e.keep(t, 3*time.Second))
		require.Equal(t, keeperFlights, e.most)
	})
}

// Leases that were begun to be ended before take up none of the first attempts' room, whatever time they get.
func TestKeeperAndLeasesThatDoNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := halfOfThemSilent()
		for i := range 100 {
			e.queue[i].Again, e.queue[i].Patience = true, time.Minute
		}
		require.EqualValues(t, 100, e.keep(t, time.Second))
		require.LessOrEqual(t, e.most, keeperRepeats+keeperFlights)
	})
}

// An attempt may take as long as it is given: where each step takes long, the last comes late.
func TestKeeperGivesRepeatedAttemptsTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &expiries{end: func(ctx context.Context, _ int64) error {
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		e.add(2)
		e.queue[1].Again, e.queue[1].Patience = true, 4*time.Second
		require.EqualValues(t, 1, e.keep(t, 5*time.Second))
	})
}

// What was judged in an earlier reign is left to the next.
func TestKeeperCountsOnlyWhatEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &expiries{end: func(_ context.Context, id int64) error {
			return []error{nil, shard.ErrLeaseRace, shard.ErrUnavailable}[id%3]
		}}
		e.add(30)
		require.EqualValues(t, 10, e.keep(t, time.Second))
	})
}
