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

// closes records the Closes that a closer makes; each takes 10 ms.
type closes struct {
	mu     sync.Mutex
	floors []shard.Revision
	err    error
}

func (c *closes) close(_ context.Context, _ shard.Span, floor shard.Revision) error {
	bubble.Pass(10 * time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floors = append(c.floors, floor)
	return c.err
}

func place(id shard.ID, epoch uint64) Place {
	return Place{Descriptor: &shard.Descriptor{ID: id, Epoch: epoch, Span: shard.Everything()}}
}

func TestCloserSharesCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := &closes{}
		c := newCloser(made.close)
		var wg sync.WaitGroup
		ask := func(floor shard.Revision) {
			wg.Go(func() { require.NoError(t, c.reach(t.Context(), place(2, 1), floor)) })
		}
		ask(100)
		synctest.Wait()
		for i := range 200 { // half of them are served by what is under way
			ask(shard.Revision(i + 1))
		}
		wg.Wait()
		require.Equal(t, []shard.Revision{100, 200}, made.floors)
		synctest.Wait()
		c.mu.Lock()
		require.Empty(t, c.mu.shards, "nothing is kept of a shard that is idle")
		c.mu.Unlock()

		ask(50)
		wg.Wait()
		require.Equal(t, []shard.Revision{100, 200, 50}, made.floors)
	})
}

// Requests that know a shard by different epochs mean different keys.
func TestCloserKeepsEpochsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := &closes{}
		c := newCloser(made.close)
		var wg sync.WaitGroup
		for epoch := range uint64(3) {
			wg.Go(func() { require.NoError(t, c.reach(t.Context(), place(2, epoch), 7)) })
		}
		wg.Wait()
		require.Len(t, made.floors, 3)
	})
}

func TestCloserOfOneWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := &closes{err: errors.New("no leader")}
		c := newCloser(made.close)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { require.ErrorIs(t, c.reach(ctx, place(2, 1), 7), context.DeadlineExceeded) })
		wg.Go(func() { require.ErrorIs(t, c.reach(t.Context(), place(2, 1), 7), made.err) })
		wg.Wait()
		require.Equal(t, []shard.Revision{7}, made.floors)
	})
}
