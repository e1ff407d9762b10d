package replica

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"

	"github.com/flotilla-kv/flotilla/internal/workers"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// readIndexMin bounds one ReadIndex, by this node's clock. That is the only way to notice a request that was lost on
	// the way to the leader, so it is short. Readers retry within their own timeout. Where answers take longer, because
	// the leader is far away, the bound is twice what the last one took, but not more than readIndexMax.
	readIndexMin, readIndexMax = 500 * time.Millisecond, 4 * time.Second
	// electedPatience is how long a new leader has to answer before it is asked again: it does not answer requests
	// that came before the first entry of its term is committed.
	electedPatience = 25 * time.Millisecond
	// roundPatience is how long the shards of a round wait for the slowest of them. Then that one continues alone: a
	// shard without a leader must not hold up the others.
	roundPatience = 3 * time.Millisecond
	// roundSpacing is the least time between the starts of two rounds if the last one served many reads. Then sharing
	// with a few more makes each read cheaper, and reads wait longer than this for a CPU anyway. A lone read never
	// waits.
	roundSpacing = time.Millisecond
	// roundCrowd is how many reads per shard make a round count as busy.
	roundCrowd = 2
)

// errBarrierLost is a ReadIndex that got no answer and should be retried.
var errBarrierLost = fmt.Errorf("no answer from a leader: %w", shard.ErrUnavailable)

// barriers gives reads their linearization point (P3). All shards of a node that have reads waiting ask Raft
// together, in rounds, so that their messages share frames and wake each worker only once. A round serves every read
// that arrived before it started; later reads take the next round. A round waits for more reads only while the
// machine is short of CPU (tempo).
type barriers struct {
	entrance *entrance
	slack    time.Duration // ticksSlack
	metrics  *Metrics
	workers  *workers.Pool
	tempo    *tempo

	mu struct {
		sync.Mutex
		ready   []*barrier // have reads waiting and no request in flight
		running bool
	}
}

// newBarrier returns one shard's part of the barriers.
func newBarrier(g *barriers, id shard.ID) barrier {
	return barrier{group: g, shardID: id, elected: make(chan struct{}, 1)}
}

// barrier is one shard's part of the barriers.
type barrier struct {
	group   *barriers
	shardID shard.ID
	elected chan struct{} // receives, coalesced, when the group has a leader: a new one, or the same again

	// Guarded by group.mu.
	next *request // the request for reads that arrived since the last round; nil if there are none
	busy bool     // in group.mu.ready, or a request is in flight

	took atomic.Int64 // nanoseconds that the last answer took
}

// bound is how long a ReadIndex may take.
func (b *barrier) bound() time.Duration {
	return min(max(2*time.Duration(b.took.Load()), readIndexMin), readIndexMax)
}

// request is one shard's ReadIndex, for all reads that arrived before it began.
type request struct {
	barrier *barrier
	reads   int // guarded by barriers.mu until the round begins
	began   time.Time

	state  *dragonboat.RequestState // of the first attempt; nil when its answer may still come
	answer chan dragonboat.RequestResult

	done chan struct{}
	err  error // the result for the reads; set before done is closed
	// told are called with the result. Guarded by barriers.mu until the round begins.
	told []func(error)
}

// wait returns nil once the replica has applied everything that was committed in the group when wait was called. It
// takes one round, so it always ends, with an error of class shard.ErrUnavailable if no leader answered.
func (b *barrier) wait(ctx context.Context) error {
	q := b.group.join(b, nil)
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return fmt.Errorf("read barrier of shard %d: %w", b.shardID, context.Cause(ctx))
	}
}

// join adds a read to the shard's next request. If told is not nil, it is called with what wait would have returned,
// after those of earlier reads; it must not block.
func (g *barriers) join(b *barrier, told func(error)) *request {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b.next == nil {
		b.next = &request{barrier: b, done: make(chan struct{})}
	}
	b.next.reads++
	if told != nil {
		b.next.told = append(b.next.told, told)
	}
	if !b.busy {
		b.busy = true
		g.enqueue(b)
	}
	return b.next
}

// enqueue puts b into the next round. g.mu is held.
func (g *barriers) enqueue(b *barrier) {
	g.mu.ready = append(g.mu.ready, b)
	if !g.mu.running {
		g.mu.running = true
		go g.run()
	}
}

// run does rounds until no shard has reads waiting.
func (g *barriers) run() {
	patience := time.NewTimer(roundPatience)
	defer patience.Stop()
	for round := g.next(nil); len(round) > 0; round = g.next(round) {
		started, reads := time.Now(), 0
		for _, q := range round {
			q.begin()
			reads += q.reads
		}
		patience.Reset(roundPatience)
		late := false
		for _, q := range round {
			if !late {
				select {
				case result := <-q.answer:
					g.finish(q, result)
					continue
				case <-patience.C:
					late = true
				}
			}
			go g.await(q)
		}
		if reads > roundCrowd*len(round) {
			time.Sleep(time.Until(started.Add(roundSpacing)))
		}
	}
}

// await finishes a request that is late for its round. A request to the old leader may be lost with that leader, so
// each new leader is asked too. Any of the answers will do.
func (g *barriers) await(q *request) {
	overdue := time.NewTimer(q.barrier.bound())
	defer overdue.Stop()
	more := make(chan dragonboat.RequestResult, 1) // the first answer to any of the later attempts
	done := make(chan struct{})
	defer close(done)
	var again <-chan time.Time
	for {
		select {
		case result := <-q.answer:
			g.finish(q, result)
			return
		case result := <-more:
			q.state = nil
			g.finish(q, result)
			return
		case <-overdue.C:
			q.learn()
			q.state = nil
			q.err = errBarrierLost
			g.finish(q, dragonboat.RequestResult{})
			return
		case <-q.barrier.elected:
		case <-again:
		}
		again = time.After(electedPatience)
		if state, err := q.barrier.ask(); err == nil {
			go func() {
				select {
				case result := <-state.ResultC():
					select {
					case more <- result:
					default:
					}
				case <-done:
				}
			}()
		}
	}
}

// learn finds out, after the reads were given up on, whether there is an answer and only takes longer. With one bound for
// all, a leader that is farther away would never be read from. What is lost does not lengthen the bound.
func (q *request) learn() {
	go func() {
		if result := <-q.answer; result.Completed() { // it ends within readIndexMax
			q.barrier.took.Store(int64(time.Since(q.began)))
		}
	}()
}

// next collects the shards of the next round, once it may start (P13). It reuses the memory of the last round. If it
// returns none, run ends.
func (g *barriers) next(round []*request) []*request {
	// Rounds serve many shards, so they start at the next tick, however many reads the last one had.
	now := time.Now()
	time.Sleep(untilTick(now, g.tempo.interval(now)))
	clear(round)
	round = round[:0]
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.mu.ready {
		round = append(round, b.next)
		g.tempo.took(b.next.reads)
		b.next = nil
	}
	g.mu.ready = g.mu.ready[:0]
	g.mu.running = len(round) > 0
	return round
}

// leaderKnown never blocks: it runs on a worker shared by all groups (P4).
func (b *barrier) leaderKnown() {
	select {
	case b.elected <- struct{}{}:
	default:
	}
}

// ask starts a ReadIndex.
func (b *barrier) ask() (*dragonboat.RequestState, error) {
	select {
	case <-b.elected: // whoever was elected is asked now
	default:
	}
	return b.group.entrance.readIndex(uint64(b.shardID), readIndexMax+b.group.slack)
}

// begin makes the first attempt.
func (q *request) begin() {
	q.began = time.Now()
	state, err := q.barrier.ask()
	if err != nil { // from the local replica, at once
		q.err = fmt.Errorf("%w: %w", refusal(err), err)
		q.answer = make(chan dragonboat.RequestResult)
		close(q.answer)
		return
	}
	q.state, q.answer = state, state.ResultC()
}

// finish gives a request's result to its reads. If others have arrived, the shard takes part in the next round.
func (g *barriers) finish(q *request, result dragonboat.RequestResult) {
	switch {
	case q.err != nil:
	case result.Completed():
		if q.state != nil {
			q.barrier.took.Store(int64(time.Since(q.began)))
		}
	case result.Terminated():
		q.err = shard.ErrStopped
	case result.Dropped():
		// There is no leader to ask. This answer comes at once, so another round would spin. The router waits a
		// little, and may have another replica to ask.
		q.err = fmt.Errorf("no leader: %w", shard.ErrUnavailable)
	default:
		q.err = errBarrierLost
	}
	if q.err != nil {
		q.err = fmt.Errorf("read barrier of shard %d: %w", q.barrier.shardID, q.err)
	}
	if q.state != nil {
		q.state.Release()
	}
	g.metrics.barrierReads.Observe(float64(q.reads))
	close(q.done)
	if len(q.told) > 0 {
		g.workers.Do(q) // one goroutine for all of them; waking one for each would cost more
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if q.barrier.busy = q.barrier.next != nil; q.barrier.busy {
		g.enqueue(q.barrier)
	}
}

// Run gives the result to asynchronous reads. It implements workers.Job.
func (q *request) Run() {
	for _, told := range q.told {
		told(q.err)
	}
}
