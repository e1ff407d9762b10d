package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"

	"github.com/flotilla-kv/flotilla/shard"
)

// readIndexTimeout bounds one ReadIndex round. A round that is lost on the way to
// the leader is only noticed by this, so it is short; readers retry within theirs.
const readIndexTimeout = 500 * time.Millisecond

// barrier gives reads their linearization point. One ReadIndex round is in flight
// at a time and serves every read that came before it started (P3).
type barrier struct {
	nh      *dragonboat.NodeHost
	shardID shard.ID
	metrics *Metrics

	mu struct {
		sync.Mutex
		waiting []chan error
		running bool
	}
}

// wait returns nil once the replica has applied everything that was committed in
// the group when wait was called.
func (b *barrier) wait(ctx context.Context) error {
	for {
		ch := make(chan error, 1)
		b.mu.Lock()
		b.mu.waiting = append(b.mu.waiting, ch)
		start := !b.mu.running
		b.mu.running = true
		b.mu.Unlock()
		if start {
			go b.drain()
		}
		select {
		case err := <-ch:
			if err == nil {
				return nil
			}
			if ctx.Err() != nil || err != errBarrierLost {
				return fmt.Errorf("read barrier of shard %d: %w", b.shardID, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("read barrier of shard %d: %w", b.shardID, context.Cause(ctx))
		}
	}
}

// errBarrierLost is a round without an answer: worth another.
var errBarrierLost = fmt.Errorf("no answer from a leader: %w", shard.ErrUnavailable)

func (b *barrier) drain() {
	for {
		b.mu.Lock()
		batch := b.mu.waiting
		b.mu.waiting = nil
		if len(batch) == 0 {
			b.mu.running = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		err := b.round()
		b.metrics.barrierReads.Observe(float64(len(batch)))
		for _, ch := range batch {
			ch <- err
		}
	}
}

func (b *barrier) round() error {
	rs, err := b.nh.ReadIndex(uint64(b.shardID), readIndexTimeout)
	if err != nil {
		return fmt.Errorf("%w: %w", refusal(err), err)
	}
	result := <-rs.ResultC()
	defer rs.Release()
	switch {
	case result.Completed():
		return nil
	case result.Terminated():
		return shard.ErrStopped
	default:
		return errBarrierLost
	}
}
