package replica

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// musterMin is the least time between two ticks. Where few commands are under way they are all there at once.
	musterMin = 5 * time.Millisecond
	// musterSlack is how long a command takes, at most, from being counted to waiting for the tick. The last to come
	// would miss the tick that it brings.
	musterSlack = 200 * time.Microsecond
	// joinable is the share of the expected commands that a node must have to start its batches with another node's.
	// The rest may have gone to the other one's shards.
	joinable = 0.75
	// musterMemory is over how many ticks the number of commands that are under way is averaged.
	musterMemory = 4
)

// muster sets the common ticks of a node's batches. If all who wait for a tick are clients that ask again when they
// have an answer, then there is a moment when every one of them is waiting, and nothing happens until the tick. So
// a tick comes as soon as about as many commands have come since the last one as were under way at a time. Earlier ones
// would have batches start without half of the clients, whose commands then make batches of their own at the next
// tick: twice as many batches for the same commands. It comes early also when another node's does, so that they share
// what batches of different nodes can share. Otherwise ticks follow the wall clock (tempo).
type muster struct {
	came     atomic.Int64 // commands so far
	pending  atomic.Int64 // commands that have no outcome yet
	peak     atomic.Int64 // the most of them since the last tick
	complete atomic.Int64 // what came is when nobody else is to be expected
	joins    atomic.Int64 // what came is when there are enough to join another node

	mu struct {
		sync.Mutex
		last     time.Time
		expected float64       // the most commands under way at a time between two ticks, averaged
		reached  chan struct{} // closed at the next tick; nil if nobody waits for one
		alarm    *time.Timer   // set to the next tick, while somebody waits
		hastened bool
		ticks    int // since early was last asked
		early    int // of them that were hastened
	}
}

// enter counts a command that has come.
func (m *muster) enter() {
	pending := m.pending.Add(1)
	for peak := m.peak.Load(); pending > peak && !m.peak.CompareAndSwap(peak, pending); {
		peak = m.peak.Load()
	}
	if m.came.Add(1) == m.complete.Load() {
		m.hasten()
	}
}

// leave counts commands that have their outcome.
func (m *muster) leave(n int) { m.pending.Add(-int64(n)) }

// next returns a channel that is closed at the next tick: with the spacing of its first caller, unless it is hastened. Whoever
// waits for the same tick gets the same channel: one timer wakes them, one after the other on one processor, where
// timers of their own would wake them on different ones.
func (m *muster) next(spacing time.Duration) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.reached == nil {
		m.mu.reached = make(chan struct{})
		m.mu.alarm = time.AfterFunc(m.latest(time.Now(), spacing), m.tick)
		m.mu.hastened = false
		if m.mu.expected > 0 && m.came.Load() >= m.complete.Load() { // they were all there before one could wait
			m.advance()
		}
	}
	return m.mu.reached
}

// latest returns how long it may be until the next tick. After one that was hastened that is a whole spacing, or the
// wall clock would often come before the last commands. mu is held.
func (m *muster) latest(now time.Time, spacing time.Duration) time.Duration {
	since := now.Sub(m.mu.last)
	if m.mu.hastened {
		return max(0, spacing-since)
	}
	early := max(0, spacing/2-since)
	return early + untilTick(now.Add(early), spacing)
}

func (m *muster) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.reached == nil { // hastened just when it was due
		return
	}
	m.mu.alarm.Stop()
	close(m.mu.reached)
	m.mu.ticks++
	if m.mu.hastened {
		m.mu.early++
	}
	m.mu.reached, m.mu.last = nil, time.Now()
	pending := m.pending.Load()
	peak := max(m.peak.Swap(pending), pending)
	m.mu.expected += (float64(peak) - m.mu.expected) / musterMemory
	came := m.came.Load()
	// Which of the nodes a client's next command goes to is chance, so this many are more or fewer than expected. Without
	// the allowance half of the ticks would wait for commands that have gone to other nodes.
	chance := math.Sqrt(m.mu.expected)
	m.complete.Store(came + max(1, int64(math.Round(m.mu.expected-chance))))
	m.joins.Store(came + max(1, int64(math.Round(joinable*m.mu.expected))))
}

// early reports whether, of the ticks since it was last asked, no more came by the clock than were hastened. Then it is not
// for the spacing that anybody waits.
func (m *muster) early() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	ticks, early := m.mu.ticks, m.mu.early
	m.mu.ticks, m.mu.early = 0, 0
	return 2*early >= ticks
}

// join has the tick come now that another node's batches have arrived, if most of this node's commands are there.
func (m *muster) join() {
	if m.came.Load() >= m.joins.Load() {
		m.hasten()
	}
}

// hasten has the next tick come now, if anybody waits for it.
func (m *muster) hasten() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.reached != nil {
		m.advance()
	}
}

// advance sets the alarm to the earliest time of the next tick. mu is held, and somebody waits for it.
func (m *muster) advance() {
	if !m.mu.hastened {
		m.mu.hastened = true
		m.mu.alarm.Reset(max(musterSlack, musterMin-time.Since(m.mu.last)))
	}
}
