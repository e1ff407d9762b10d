package portmux

import (
	"net"
	"sync"
)

// listener is the part of the port that belongs to one protocol.
type listener struct {
	addr    net.Addr
	waiting *waitingRoom

	// offers has no buffer: a connection stays with its waiter, which M3 and M4
	// bound, until a server takes it.
	offers chan offer

	closeOnce sync.Once
	closed    chan struct{}
}

// offer is a decided connection; waiter is how the room knows it.
type offer struct {
	conn   net.Conn
	waiter *waiter
}

func newListener(addr net.Addr, waiting *waitingRoom) *listener {
	return &listener{addr: addr, waiting: waiting, offers: make(chan offer), closed: make(chan struct{})}
}

// Accept returns the next connection of the protocol, or net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case o := <-l.offers:
			// The room may have thrown it out while it changed hands.
			if l.waiting.leave(o.waiter) {
				return o.conn, nil
			}
		case <-l.closed:
			return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
		}
	}
}

// Close refuses the protocol from now on; the port and its other protocols go on.
func (l *listener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }
