package admission

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// Latency is the target latency of a write. More writes in flight than a shard answers within
	// it would only wait in its queues.
	Latency = 100 * time.Millisecond
	// alone is how many times a lone write's latency is allowed where that exceeds Latency: a shard
	// whose replicas are far apart needs many writes in flight.
	alone = 4
	// WaitMax is how long a write may be queued. It is longer than a shard takes to elect a leader,
	// and shorter than the timeout of many clients.
	WaitMax = 3 * time.Second
	// fairWait is for how long writes are served in arrival order. When writes have waited longer
	// there are more than the shard can answer in time, and serving the oldest would mean serving
	// all of them after their clients have given up: a node learns of that late, if at all.
	fairWait = time.Second

	// startUnder is a shard's initial limit. Every node allows it for every shard, so it must be low enough that a
	// sudden crowd does not fill their queues before the limit was learned. minUnder and maxUnder bound the learned
	// limit.
	startUnder, minUnder, maxUnder = 64, 32, 4096
)

// Lanes admit writes, for each shard separately. Methods may be called on nil, which admits at
// once, and concurrently.
type Lanes struct {
	metrics *Metrics
	// waitingMax bounds the queued writes, over all shards (Q5).
	waitingMax int

	mu struct {
		sync.Mutex
		lanes   map[shard.ID]*lane // of shards with writes in flight
		waiting int                // in all of them
	}
	shards atomic.Int64 // how many lanes there are
}

// Shards is the number of shards with writes in flight.
func (l *Lanes) Shards() int {
	if l == nil {
		return 0
	}
	return int(l.shards.Load())
}

// NewLanes returns empty Lanes, for a node whose Room has these bounds.
func NewLanes(m *Metrics, b Bounds) *Lanes {
	l := &Lanes{metrics: m, waitingMax: int(writes(b.withDefaults().Requests))}
	l.mu.lanes = make(map[shard.ID]*lane)
	return l
}

// lane is one shard's state. It is dropped when nothing is in flight.
type lane struct {
	under, limit int
	waiting      list.List // of *Waiter, in the order of their coming
	serving      bool      // somebody gives those who wait their turns
	watched      bool      // there is a timer for the first that waits

	// What was learned about the shard.
	usual    time.Duration // that a write takes, lately
	fastest  time.Duration // latency of the fastest of them
	in       int           // time, since the limit was last raised
	narrowed time.Time     // when the limit was
}

// Waiter is a queued write. Whoever removes it from its lane reports the outcome.
type Waiter struct {
	lanes    *Lanes
	id       shard.ID
	lane     *lane
	place    *list.Element // guarded by Lanes.mu; nil once it no longer waits
	came     time.Time
	deadline time.Time // zero: none
	turn     func(Turn, error)
}

// Turn is the admission of one write. The zero value needs none.
type Turn struct {
	lanes *Lanes
	id    shard.ID
	began time.Time
}

// Try is Begin for a write that would not be queued; false if it would.
func (l *Lanes) Try(id shard.ID) (Turn, bool) {
	if l == nil {
		return Turn{}, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.try(id, time.Now())
}

// try is Try; mu is held.
func (l *Lanes) try(id shard.ID, now time.Time) (Turn, bool) {
	ln := l.mu.lanes[id]
	if ln == nil {
		ln = &lane{limit: startUnder}
		l.mu.lanes[id] = ln
		l.shards.Add(1)
	}
	if ln.under >= ln.limit { // otherwise nobody waits
		return Turn{}, false
	}
	ln.under++
	return Turn{l, id, now}, true
}

// Begin calls turn once, either with a turn, when the write may be sent to the shard, which must be
// left when the write has ended, or with an error, and then the write must not be sent. A write is
// useless after deadline; zero is none. turn must not block, and may be called before Begin
// returns.
func (l *Lanes) Begin(id shard.ID, deadline time.Time, turn func(Turn, error)) *Waiter {
	w := &Waiter{lanes: l, id: id, came: time.Now(), deadline: deadline, turn: turn}
	l.mu.Lock()
	if t, ok := l.try(id, w.came); ok {
		l.mu.Unlock()
		turn(t, nil)
		return w
	}
	w.lane = l.mu.lanes[id]
	if w.lane.waiting.Len() >= l.waitingMax-l.mu.waiting {
		l.mu.Unlock()
		l.metrics.refused(Write, "queue")
		turn(Turn{}, fmt.Errorf("too many writes wait for shard %d: %w", id, shard.ErrOverloaded))
		return w
	}
	w.place = w.lane.waiting.PushBack(w)
	l.mu.waiting++
	l.watch(w.lane, WaitMax)
	l.mu.Unlock()
	l.metrics.waits(1)
	return w
}

// Abandon ends the write with cause, if it is queued.
func (w *Waiter) Abandon(cause error) {
	w.lanes.mu.Lock()
	waits := w.place != nil
	if waits {
		w.remove()
	}
	w.lanes.mu.Unlock()
	if waits {
		w.turn(Turn{}, cause)
	}
}

// remove removes the write from its lane; Lanes.mu is held.
func (w *Waiter) remove() {
	w.lane.waiting.Remove(w.place)
	w.place = nil
	w.lanes.mu.waiting--
	w.lanes.metrics.waits(-1)
}

// refuse tells a write that was removed from its lane why it is not sent.
func (w *Waiter) refuse(err error) {
	w.lanes.metrics.refused(Write, "wait")
	w.turn(Turn{}, err)
}

// Enter waits until a write may be sent to the shard. After an error, which wraps
// shard.ErrOverloaded or is the context's cause, it must not be; otherwise the turn must be left
// when the write has ended.
func (l *Lanes) Enter(ctx context.Context, id shard.ID) (Turn, error) {
	if turn, ok := l.Try(id); ok {
		return turn, nil
	}
	type outcome struct {
		turn Turn
		err  error
	}
	told := make(chan outcome, 1)
	deadline, _ := ctx.Deadline()
	w := l.Begin(id, deadline, func(turn Turn, err error) { told <- outcome{turn, err} })
	select {
	case o := <-told:
		return o.turn, o.err
	case <-ctx.Done():
		w.Abandon(context.Cause(ctx))
		o := <-told // its turn, if it came in the meantime
		if o.err == nil {
			o.turn.Leave(nil)
			o.err = context.Cause(ctx)
		}
		return Turn{}, o.err
	}
}

// watch refuses, after d, the writes that have waited too long; mu is held. One timer per lane
// suffices, because writes expire in arrival order.
func (l *Lanes) watch(ln *lane, d time.Duration) {
	if !ln.watched {
		ln.watched = true
		time.AfterFunc(d, func() { l.expire(ln) })
	}
}

// expire refuses writes that have waited for WaitMax (Q4).
func (l *Lanes) expire(ln *lane) {
	now := time.Now()
	var late []*Waiter
	l.mu.Lock()
	ln.watched = false
	for first := ln.waiting.Front(); first != nil; first = ln.waiting.Front() {
		w := first.Value.(*Waiter)
		if rest := WaitMax - now.Sub(w.came); rest > 0 {
			l.watch(ln, rest)
			break
		}
		w.remove()
		late = append(late, w)
	}
	l.mu.Unlock()
	for _, w := range late {
		w.refuse(fmt.Errorf("waited %s for shard %d to take a write: %w", WaitMax, w.id, shard.ErrOverloaded))
	}
}

// Leave ends the turn. err is the outcome of the write.
func (t Turn) Leave(err error) {
	if t.lanes == nil {
		return
	}
	l, now := t.lanes, time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.mu.lanes[t.id]
	ln.learn(t.began, now, err)
	ln.under--
	if ln.serving {
		return // the goroutine that serves finds this place too
	}
	ln.serving = true
	for ln.under < ln.limit && ln.waiting.Len() > 0 {
		w := ln.next(now)
		w.remove()
		hurried := !w.deadline.IsZero() && w.deadline.Sub(now) < min(ln.usual, Latency)
		if !hurried {
			ln.under++
		}
		l.mu.Unlock() // its write may end at once
		if hurried {
			w.refuse(fmt.Errorf("shard %d would not answer in time: %w", t.id, shard.ErrOverloaded))
		} else {
			l.metrics.waited(now.Sub(w.came))
			w.turn(Turn{l, t.id, now}, nil)
		}
		now = time.Now()
		l.mu.Lock()
	}
	ln.serving = false
	if ln.under == 0 {
		delete(l.mu.lanes, t.id)
		l.shards.Add(-1)
	}
}

// next is the write to admit next: the first, or the last when the first has waited too long.
func (ln *lane) next(now time.Time) *Waiter {
	first := ln.waiting.Front().Value.(*Waiter)
	if now.Sub(first.came) > fairWait {
		return ln.waiting.Back().Value.(*Waiter)
	}
	return first
}

// learn adapts the limit to a write's latency (Q3): while writes are fast enough and the limit is
// reached, it rises by an eighth per latency, and otherwise it falls by a quarter, once per
// latency.
func (ln *lane) learn(began, now time.Time, err error) {
	took := now.Sub(began)
	ln.usual += (took - ln.usual) / 8
	if err == nil && (ln.fastest == 0 || took < ln.fastest) {
		ln.fastest = took
	}
	switch {
	case took > max(Latency, alone*ln.fastest):
		if began.After(ln.narrowed) {
			if ln.limit == minUnder {
				ln.fastest += ln.fastest / 8 // it has become slower for good
			}
			ln.limit, ln.narrowed = max(minUnder, ln.limit*3/4), now
		}
	case ln.under >= ln.limit && err == nil:
		if ln.in++; ln.in >= 8 {
			ln.limit, ln.in = min(maxUnder, ln.limit+1), 0
		}
	}
}
