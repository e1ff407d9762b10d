package portmux

import (
	"container/list"
	"net"
	"sync"
)

// waitingRoom holds the connections that no server has accepted yet, oldest first.
type waitingRoom struct {
	max int // immutable

	mu struct {
		sync.Mutex
		closed bool
		conns  list.List // of *waiter
	}
	// attendants are the goroutines that enter started. Added to under mu while
	// open, so that close waits for all of them.
	attendants sync.WaitGroup
}

// waiter is one connection in the room.
type waiter struct {
	conn    net.Conn
	gone    chan struct{} // closed when the room threw the connection out
	element *list.Element // nil after leaving; guarded by the room's mu
}

// enter admits c and runs attend for it. It closes the oldest connection when the
// room is full (M4), and c when the room is closed.
func (r *waitingRoom) enter(c net.Conn, attend func(*waiter)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		_ = c.Close() // refused: nobody to tell
		return
	}
	if r.mu.conns.Len() >= r.max {
		r.evict(r.mu.conns.Front())
	}
	w := &waiter{conn: c, gone: make(chan struct{})}
	w.element = r.mu.conns.PushBack(w)
	r.attendants.Go(func() { attend(w) })
}

// leave removes w and reports whether it was still there. Only then does its
// connection belong to the caller.
func (r *waitingRoom) leave(w *waiter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.element == nil {
		return false
	}
	r.mu.conns.Remove(w.element)
	w.element = nil
	return true
}

// close throws everybody out, admits nobody any more, and waits for the attendants.
func (r *waitingRoom) close() {
	r.mu.Lock()
	r.mu.closed = true
	for e := r.mu.conns.Front(); e != nil; e = r.mu.conns.Front() {
		r.evict(e)
	}
	r.mu.Unlock()
	r.attendants.Wait()
}

// evict closes the connection, which also wakes whoever reads from it. Needs mu.
func (r *waitingRoom) evict(e *list.Element) {
	w := e.Value.(*waiter)
	r.mu.conns.Remove(e)
	w.element = nil
	close(w.gone)
	_ = w.conn.Close() // a client that never got to speak
}
