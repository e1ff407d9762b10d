package replica

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// started waits for a barrier that nobody has to wait for.
func (p *process) started() (shard.View, error) {
	type outcome struct {
		view shard.View
		err  error
	}
	done := make(chan outcome, 2)
	p.replica.StartBarrier(func(view shard.View, err error) { done <- outcome{view, err} })
	o := <-done
	require.Empty(p.t, done)
	return o.view, o.err
}

// P3: who writes and then asks sees the write, whether or not the barrier is waited for.
func TestBarrierSeesAcknowledgedWrites(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 30 {
				rev := p.put("a", "1")
				barrier := p.started
				if i%2 == 0 {
					barrier = func() (shard.View, error) { return p.replica.Barrier(t.Context()) }
				}
				view, err := barrier()
				require.NoError(t, err)
				require.GreaterOrEqual(t, view.Rev, rev)
			}
		})
	}
	wg.Wait()
}

// rounds is how many ReadIndex rounds there were.
func (p *process) rounds() uint64 {
	var m dto.Metric
	require.NoError(p.t, p.host.cfg.Metrics.barrierReads.(prometheus.Metric).Write(&m))
	return m.GetHistogram().GetSampleCount()
}

// Without a leader a barrier fails, soon and certainly, and does not spin.
func TestBarrierWithoutALeader(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startAlone()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := p.replica.Barrier(ctx)
	require.ErrorIs(t, err, shard.ErrUnavailable)
	_, err = p.started()
	require.ErrorIs(t, err, shard.ErrUnavailable)
	require.Less(t, time.Since(start), patience)
	require.LessOrEqual(t, p.rounds(), uint64(50))
}

func TestBarrierOfOneWhoLeaves(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.replica.Barrier(ctx)
	if err != nil { // the round may have been faster
		require.ErrorIs(t, err, context.Canceled)
	}
	_, err = p.replica.Barrier(t.Context())
	require.NoError(t, err, "the others are not disturbed")
}

func TestBarrierOfAStoppedNode(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	p.startNew()
	p.close()
	_, err := p.replica.Barrier(t.Context())
	require.Error(t, err)
	require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
	_, err = p.started()
	require.Error(t, err)
	require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
}

func TestWaitFloor(t *testing.T) {
	p := openProcess(t, t.TempDir(), 1, Knobs{})
	defer func() { p.close() }()
	p.startNew()
	rev := p.put("a", "1")
	require.NoError(t, p.replica.WaitFloor(t.Context(), rev), "a write closes what is below it")

	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { require.NoError(t, p.replica.WaitFloor(t.Context(), rev+shard.Revision(20*i))) })
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	wg.Go(func() {
		err := p.replica.WaitFloor(ctx, rev+1_000_000)
		require.ErrorIs(t, err, &gone)
	})
	for floor := rev; floor < rev+1000; floor += 100 {
		require.NoError(t, p.propose(&shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: 1, Revision: int64(floor + 100)}).Err)
		require.Equal(t, floor+100, p.replica.View().Floor)
	}
	require.Equal(t, rev, p.replica.View().Rev, "a Close mints nothing")
	cancel(&gone)
	wg.Wait()
	p.replica.views.Lock() // the apply worker may still be looking
	waiting := len(p.replica.views.waiters)
	p.replica.views.Unlock()
	require.Zero(t, waiting)
	require.Greater(t, p.put("a", "2"), rev+1000)
}

var gone shard.NotClosedError
