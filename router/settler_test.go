package router

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/bubble"
	"github.com/flotilla-kv/flotilla/shard"
)

// probes tell when they began; each takes 1 ms.
type probes struct {
	mu   sync.Mutex
	made []time.Time
	err  error
}

func (p *probes) probe(context.Context, Place) (shard.Revision, error) {
	now := time.Now()
	p.mu.Lock()
	p.made = append(p.made, now)
	p.mu.Unlock()
	bubble.Pass(time.Millisecond)
	return shard.Revision(now.UnixNano()), p.err
}

// told is what who asks is told.
type told struct {
	rev  shard.Revision
	err  error
	done chan struct{}
}

func (a *told) Settled(rev shard.Revision, err error) {
	a.rev, a.err = rev, err
	close(a.done)
}

// ask waits for what it is told.
func (s *settler) ask(p Place) (shard.Revision, error) {
	a := &told{done: make(chan struct{})}
	s.settle(p, a)
	<-a.done
	return a.rev, a.err
}

func (s *settler) empty(t *testing.T) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Empty(t, s.mu.next, "nothing is kept of a shard that is idle")
}

// Whoever asks is told by a probe that began later. Those who ask together share one, and
// the next waits a little; whoever is alone does not wait for it.
func TestSettlerSharesProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := &probes{}
		s := newSettler(made.probe)
		defer s.stop()
		ask := func() {
			asked := shard.Revision(time.Now().UnixNano())
			rev, err := s.ask(place(2, 1))
			require.NoError(t, err)
			require.GreaterOrEqual(t, rev, asked)
		}
		for range 5 {
			ask()
		}
		require.Len(t, made.made, 5)
		require.Equal(t, 4*time.Millisecond, made.made[4].Sub(made.made[0]))
		s.empty(t)

		var wg sync.WaitGroup
		wg.Go(ask)
		synctest.Wait()
		for range 200 { // while a probe is under way
			wg.Go(ask)
		}
		bubble.Pass(time.Millisecond)
		synctest.Wait()
		wg.Go(ask)
		wg.Wait()
		require.Len(t, made.made, 8)
		require.Equal(t, time.Millisecond, made.made[6].Sub(made.made[5]))
		require.Equal(t, 2*time.Millisecond, made.made[7].Sub(made.made[6]))
		s.empty(t)
	})
}

// Those who know a shard by different epochs mean different keys.
func TestSettlerKeepsEpochsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := &probes{}
		s := newSettler(made.probe)
		defer s.stop()
		var wg sync.WaitGroup
		for epoch := range uint64(3) {
			wg.Go(func() {
				_, err := s.ask(place(2, epoch))
				require.NoError(t, err)
			})
		}
		wg.Wait()
		require.Len(t, made.made, 3)
	})
}

// A failure is told to all who share it.
func TestSettlerTellsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := &probes{err: errors.New("no leader")}
		s := newSettler(made.probe)
		defer s.stop()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				_, err := s.ask(place(2, 1))
				require.ErrorIs(t, err, made.err)
			})
		}
		wg.Wait()
		require.LessOrEqual(t, len(made.made), 2)
	})
}
