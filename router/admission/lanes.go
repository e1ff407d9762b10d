package admission

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// Latency is how long a write should be under way. More writes at a time than a shard
	// answers in it would only wait in its queues.
	Latency = 100 * time.Millisecond
	// alone is how many times what one write takes all may take, where that is more than
	// Latency: a shard whose replicas are far apart needs many under way.
	alone = 4
	// WaitMax is how long a write waits for its turn. It is longer than a shard takes to
	// elect a leader, and shorter than many clients give a request.
	WaitMax = 3 * time.Second
	// fairWait is for how long who comes first is served first. When writes have waited longer
	// there are more than the shard can answer in time, and to serve the oldest would be to serve all
	// when their clients have given up: a node learns of that late, if at all.
	fairWait = time.Second

	// startUnder is how many writes a shard is given at first, minUnder and maxUnder are the
	// bounds of what is learned.
	startUnder, minUnder, maxUnder = 256, 32, 4096

	// waitingMax bounds the writes that wait, for all shards (Q5).
	waitingMax = writesMax
)

// Lanes give writes their turn, for each shard by itself. Methods may be called on nil, which
// gives it at once, and by many at the same time.
type Lanes struct {
	metrics *Metrics

	mu struct {
		sync.Mutex
		lanes   map[shard.ID]*lane // of those with writes under way
		waiting int                // in all of them
	}
}

// NewLanes returns Lanes in which nobody waits.
func NewLanes(m *Metrics) *Lanes {
	l := &Lanes{metrics: m}
	l.mu.lanes = make(map[shard.ID]*lane)
	return l
}

// lane is one shard's. It is forgotten when nothing is under way.
type lane struct {
	under, limit int
	waiting      list.List // of *waiter, in the order of their coming

	// What was learned of the shard.
	usual    time.Duration // that a write takes, lately
	fastest  time.Duration // that one took
	in       int           // time, since the limit was last raised
	narrowed time.Time     // when the limit was
}

// waiter is a write that waits. Whoever takes it out of its lane sends it the outcome.
type waiter struct {
	came     time.Time
	deadline time.Time // zero: none
	waits    bool      // guarded by Lanes.mu
	turn     chan error
}

// Turn lets one write be under way. The zero value needs none.
type Turn struct {
	lanes *Lanes
	id    shard.ID
	began time.Time
}

// Enter waits until a write may be sent to the shard. After an error, which wraps
// shard.ErrOverloaded or is the cause of the context's end, it must not be; otherwise the
// turn must be left when the write has ended.
func (l *Lanes) Enter(ctx context.Context, id shard.ID) (Turn, error) {
	if l == nil {
		return Turn{}, nil
	}
	now := time.Now()
	l.mu.Lock()
	ln := l.mu.lanes[id]
	if ln == nil {
		ln = &lane{limit: startUnder}
		l.mu.lanes[id] = ln
	}
	if ln.under < ln.limit { // then nobody waits
		ln.under++
		l.mu.Unlock()
		return Turn{l, id, now}, nil
	}
	if ln.waiting.Len() >= waitingMax-l.mu.waiting {
		l.mu.Unlock()
		l.metrics.refused(Write, "queue")
		return Turn{}, fmt.Errorf("too many writes wait for shard %d: %w", id, shard.ErrOverloaded)
	}
	w := &waiter{came: now, waits: true, turn: make(chan error, 1)}
	w.deadline, _ = ctx.Deadline()
	place := ln.waiting.PushBack(w)
	l.mu.waiting++
	l.mu.Unlock()
	l.metrics.waits(1)
	defer l.metrics.waits(-1)

	late := time.NewTimer(WaitMax)
	defer late.Stop()
	var err error
	select {
	case err = <-w.turn:
	case <-ctx.Done():
		if !l.withdraw(ln, place) {
			if <-w.turn == nil { // its turn came meanwhile
				Turn{l, id, time.Now()}.Leave(nil)
			}
		}
		return Turn{}, context.Cause(ctx)
	case <-late.C:
		if l.withdraw(ln, place) {
			err = fmt.Errorf("waited %s for shard %d to take a write: %w", WaitMax, id, shard.ErrOverloaded)
		} else {
			err = <-w.turn
		}
	}
	if err != nil {
		l.metrics.refused(Write, "wait")
		return Turn{}, err
	}
	began := time.Now()
	l.metrics.waited(began.Sub(now))
	return Turn{l, id, began}, nil
}

// withdraw takes a write out of its lane; false if it is not there any more.
func (l *Lanes) withdraw(ln *lane, place *list.Element) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := place.Value.(*waiter)
	if !w.waits {
		return false
	}
	l.remove(ln, place)
	return true
}

// remove takes a write out of its lane; mu is held.
func (l *Lanes) remove(ln *lane, place *list.Element) *waiter {
	w := ln.waiting.Remove(place).(*waiter)
	w.waits = false
	l.mu.waiting--
	return w
}

// Leave ends the turn. err is how the write ended.
func (t Turn) Leave(err error) {
	if t.lanes == nil {
		return
	}
	now := time.Now()
	l := t.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.mu.lanes[t.id]
	ln.learn(t.began, now, err)
	ln.under--
	for ln.under < ln.limit && ln.waiting.Len() > 0 {
		w := l.remove(ln, ln.next(now))
		if !w.deadline.IsZero() && w.deadline.Sub(now) < min(ln.usual, Latency) {
			w.turn <- fmt.Errorf("shard %d would not answer in time: %w", t.id, shard.ErrOverloaded)
			continue
		}
		ln.under++
		w.turn <- nil
	}
	if ln.under == 0 {
		delete(l.mu.lanes, t.id)
	}
}

// next is whose turn it is: the first that came, or the last when the first has waited too long.
func (ln *lane) next(now time.Time) *list.Element {
	first := ln.waiting.Front()
	if now.Sub(first.Value.(*waiter).came) > fairWait {
		return ln.waiting.Back()
	}
	return first
}

// learn fits the limit to how long a write took (Q3): while those that use it up are fast
// enough it rises by an eighth in the time that one takes, and otherwise it falls by a
// quarter, once in that time.
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
