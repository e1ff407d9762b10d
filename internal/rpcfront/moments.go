package rpcfront

import (
	"sync"
	"time"
)

// moments are those at which connections write what need not leave at once, all of them at the same ones, by the wall clock.
type moments struct {
	mu struct {
		sync.Mutex
		conns   []*conn // that write at the next one
		at      time.Time
		timer   *time.Timer
		stopped bool
	}
}

// add has a connection write at the next moment, of which there is one every distance.
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

// come is a moment.
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

// stop ends the timer. What waits has nobody to go to any more.
func (m *moments) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.stopped = true
	if m.mu.timer != nil {
		m.mu.timer.Stop()
	}
}
