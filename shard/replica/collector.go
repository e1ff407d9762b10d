package replica

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
)

const (
	// busyPause is how long the collector leaves a replica alone whose data is being replaced.
	busyPause = 50 * time.Millisecond
	// singles is how many versions of a key are dropped one by one before one range tombstone drops the rest. To
	// every reader of a memtable, a range tombstone costs as much as a handful of single ones, so it has to stand for
	// many. With this number, no memtable holds more than about a thousand of them. It must be less than a step, or
	// it would never be reached.
	singles = 256
	// failurePause is how long the collector rests when the store failed. The failure may be permanent, and each
	// attempt writes a line to the log.
	failurePause = 30 * time.Second
	// flushBytes is how much must have been dropped to justify flushing the memtable and calling Tidy. It is also the
	// assumed size of a dropped history. While removals are only in the memtable, they free no disk space.
	flushBytes = 4 << 20
)

// collector removes the garbage of a node's replicas in the background (P6). It runs only after a compaction of
// history; on an idle node it does nothing.
type collector struct {
	host   *Host
	wake   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	// Owned by run.
	share     *share
	unflushed int64 // bytes dropped since the store was last tidied

	mu struct {
		sync.Mutex
		progress chan struct{} // closed and replaced when a replica may have been finished
	}
}

func newCollector(h *Host) *collector {
	c := &collector{host: h, wake: make(chan struct{}, 1), share: newShare(newWaits().since, h.updates.Load)}
	c.unflushed = flushBytes // so that the store is tidied once; the last process may not have done so
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.progress = make(chan struct{})
	return c
}

func (c *collector) start() { c.work.Go(c.run) }

// close stops the collector, and returns when it has stopped.
func (c *collector) close() {
	c.cancel()
	c.work.Wait()
}

// poke makes the collector look for garbage. It never blocks.
func (c *collector) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *collector) run() {
	var round shard.Revision // the latest compaction when the last round of walks began; 0: there has been none since
	for c.ctx.Err() == nil {
		waiting, compacted := c.waiting()
		if round != 0 {
			c.share.walked(compacted > round)
			round = 0
		}
		c.announce()
		if len(waiting) == 0 {
			if !c.tidy() {
				continue
			}
			select {
			case <-c.wake:
			case <-c.ctx.Done():
			}
			continue
		}
		round = compacted
		for _, r := range waiting {
			c.clean(r)
		}
	}
}

// waiting returns the replicas that have garbage, the furthest behind first, and the latest compaction of any.
func (c *collector) waiting() (list []*Replica, compacted shard.Revision) {
	c.host.Each(func(r *Replica) {
		v := r.View()
		compacted = max(compacted, v.Compacted)
		if v.Descriptor != nil && v.Compacted > r.Collected() {
			list = append(list, r)
		}
	})
	slices.SortFunc(list, func(a, b *Replica) int {
		return cmp.Or(cmp.Compare(a.Collected(), b.Collected()), cmp.Compare(a.id, b.id))
	})
	m := c.host.cfg.Metrics
	m.compacted.Set(float64(compacted))
	m.shardsWaiting.Set(float64(len(list)))
	m.lag.Set(lagOf(list))
	return list, compacted
}

// lagOf returns how much history, in seconds, the first of the list holds in excess.
func lagOf(list []*Replica) float64 {
	switch {
	case len(list) == 0:
		return 0
	case list[0].Collected() == 0:
		return -1
	default:
		return list[0].View().Compacted.Tick().Time().Sub(list[0].Collected().Tick().Time()).Seconds()
	}
}

// clean does steps until the replica has no garbage left of the compaction with which it began, or has to be left
// alone for now.
func (c *collector) clean(r *Replica) {
	m := c.host.cfg.Metrics
	began := time.Now()
	for c.ctx.Err() == nil {
		started, versions := time.Now(), c.share.versions()
		step, err := r.machine.Collect(mvcc.CollectLimits{Versions: versions, Drops: versions, Singles: singles})
		took := time.Since(started)
		if err != nil {
			c.host.cfg.Logger.Error("cannot remove superseded versions; trying again later", "shard", r.id, "error", err)
			c.rest(failurePause)
			return
		}
		m.steps.Observe(float64(took) / float64(time.Millisecond))
		m.looked.Add(float64(step.Versions))
		m.dropped.Add(float64(step.Dropped))
		m.droppedBytes.Add(float64(step.Bytes))
		m.histories.Add(float64(step.Histories))
		c.unflushed += step.Bytes + int64(step.Histories)*flushBytes
		switch {
		case !step.Ran: // a snapshot is being received
			c.rest(busyPause)
			return
		case step.Done:
			m.walks.Observe(float64(time.Since(began)) / float64(time.Millisecond))
			m.lastWalk.SetToCurrentTime()
			c.announce()
		}
		c.leave(c.share.rest(step.Versions, took))
		if step.Done {
			return
		}
	}
}

// leave gives the CPUs to others between two pieces of work, and learns from that pause.
func (c *collector) leave(pause time.Duration) {
	paused := time.Now()
	c.rest(pause)
	c.share.rested(time.Since(paused) - pause)
}

func (c *collector) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ctx.Done():
	}
}

// tidy frees the disk space of what was dropped. It takes as much CPU time as the walks do. It reports whether it is
// done: it stops as soon as there is garbage to remove.
func (c *collector) tidy() bool {
	if c.unflushed < flushBytes {
		return true
	}
	began := time.Now()
	done, err := c.host.cfg.Engine.Tidy(c.ctx, func() bool {
		c.leave(c.share.after(time.Since(began)))
		began = time.Now()
		waiting, _ := c.waiting()
		return c.ctx.Err() == nil && len(waiting) == 0
	})
	if err != nil && c.ctx.Err() == nil {
		c.host.cfg.Logger.Error("cannot bring down what was removed", "error", err)
	}
	if done = done || err != nil; done {
		c.unflushed = 0
	}
	return done
}

// announce makes waiting callers look again.
func (c *collector) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.mu.progress)
	c.mu.progress = make(chan struct{})
}

func (c *collector) progress() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.progress
}

// Collected returns the revision up to which the replica has removed what compactions of history released.
func (r *Replica) Collected() shard.Revision { return r.machine.Collected() }

// WaitCollected waits until every replica of this node has removed what a compaction at this revision released.
func (h *Host) WaitCollected(ctx context.Context, rev shard.Revision) error {
	for {
		progress := h.collector.progress() // before the look
		behind := 0
		h.Each(func(r *Replica) {
			if r.Collected() < rev {
				behind++
			}
		})
		if behind == 0 {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d shards to remove what a compaction at %s lets go: %w", behind, rev, context.Cause(ctx))
		case <-h.collector.ctx.Done():
			return fmt.Errorf("wait for %d shards to remove what a compaction at %s lets go: %w", behind, rev, shard.ErrStopped)
		}
	}
}
