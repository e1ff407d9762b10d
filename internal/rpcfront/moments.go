package rpcfront

import (
	"sync"
	"time"
)

// moments are the ticks at which connections write what need not be sent at once, the same for all,
// by the wall clock.
type moments struct {
	mu struct {
		sync.Mutex
		conns   []*conn // that write at the next one
		at      time.Time
		timer   *time.Timer
		stopped bool
	}
}

// add makes a connection write at the next tick, of which there is one per distance.
func (m *moments) add(c *conn, distance time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.conns = append(m.mu.conns, c)
	now := time.Now()
	wait := distance - time.Duration(now.UnixNano())%distance
	at := now.Add(wait)
	if m.mu.stopped || len(m.mu.conns) > 1 && !at.Before(m.mu.at) {
		return
	}
	m.mu.at = at
	if m.mu.timer == nil {
		m.mu.timer = time.AfterFunc(wait, m.come)
	} else {
		m.mu.timer.Reset(wait)
	}
}

// come handles a tick.
func (m *moments) come() {
	m.mu.Lock()
	conns := m.mu.conns
	m.mu.conns = make([]*conn, 0, len(conns)) // as many come next, most likely
	m.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		c.awaits = false
		c.kickHeld()
		c.mu.Unlock()
	}
}

// stop ends the timer. What waits has no receiver any more.
func (m *moments) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.stopped = true
	if m.mu.timer != nil {
		m.mu.timer.Stop()
	}
}
