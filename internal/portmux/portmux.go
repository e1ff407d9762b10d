package portmux

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Config bounds what undecided connections may cost. The zero value has the defaults.
type Config struct {
	// Timeout is how long a connection may take from being accepted until its
	// protocol's server has it, a TLS handshake included. Default 10 s.
	Timeout time.Duration
	// UndecidedMax is how many connections may be in that state at once. Each costs
	// one goroutine. Default 4096. Larger tolerates bigger bursts of new clients.
	UndecidedMax int
}

func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.UndecidedMax <= 0 {
		c.UndecidedMax = 4096
	}
	return c
}

// Mux divides one listener among protocols.
type Mux struct {
	root      net.Listener
	cfg       Config
	protocols protocolTable
	listeners []*listener
	waiting   waitingRoom

	closeOnce sync.Once
	closed    chan struct{}
}

// New divides root among the protocols. Listener gives each one's share; Serve does
// the work. New fails when two protocols cannot be told apart.
func New(root net.Listener, cfg Config, protocols ...Protocol) (*Mux, error) {
	table, err := newProtocolTable(protocols)
	if err != nil {
		return nil, fmt.Errorf("divide %s among protocols: %w", root.Addr(), err)
	}
	m := &Mux{root: root, cfg: cfg.withDefaults(), protocols: table, closed: make(chan struct{})}
	m.waiting.max = m.cfg.UndecidedMax
	for range protocols {
		m.listeners = append(m.listeners, newListener(root.Addr(), &m.waiting))
	}
	return m, nil
}

// Listener returns the share of the i-th protocol given to New. Closing it closes
// new connections of that protocol only.
func (m *Mux) Listener(i int) net.Listener { return m.listeners[i] }

// Serve accepts connections until Close, then returns nil, or until the root
// listener fails for good. It does not wait for Close to finish.
func (m *Mux) Serve() error {
	var retry time.Duration
	for {
		c, err := m.root.Accept()
		switch {
		case err == nil:
			retry = 0
			m.waiting.enter(c, m.decide)
		case m.isClosed():
			return nil
		case temporary(err):
			// Out of file descriptors, most likely. Existing connections go on and
			// will free some; giving up here would end the node's service.
			retry = min(max(2*retry, acceptRetryMin), acceptRetryMax)
			if !m.pause(retry) {
				return nil
			}
		default:
			_ = m.Close() // the cause is err
			return fmt.Errorf("accept on %s: %w", m.root.Addr(), err)
		}
	}
}

// Pauses after a temporary accept failure, as net/http takes them.
const (
	acceptRetryMin = 5 * time.Millisecond
	acceptRetryMax = time.Second
)

// temporary reports whether a later accept may succeed.
func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// pause waits for d and reports whether the Mux is still open.
func (m *Mux) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.closed:
		return false
	}
}

func (m *Mux) isClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

// decide reads from the connection until its protocol is known, then offers it to
// that protocol's server. A connection that is not taken is closed.
func (m *Mux) decide(w *waiter) {
	deadline := time.Now().Add(m.cfg.Timeout)
	head, protocol := m.sniff(w.conn, deadline)
	if protocol >= 0 && m.hand(offer{newConn(w.conn, head), w}, m.listeners[protocol], deadline) {
		return
	}
	if m.waiting.leave(w) {
		_ = w.conn.Close() // garbage, silent or refused: nobody to tell
	}
}

// sniff reads the first bytes and names their protocol; negative when there is none.
func (m *Mux) sniff(c net.Conn, deadline time.Time) ([]byte, int) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return nil, unknown
	}
	head := make([]byte, 0, m.protocols.prefixBytesMax())
	protocol := undecided
	for protocol == undecided {
		// Never beyond the longest prefix: a full head is always decided.
		n, err := c.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if protocol = m.protocols.decide(head); protocol == undecided && err != nil {
			return nil, unknown
		}
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, unknown
	}
	return head, protocol
}

// hand waits for a server to take the offer and reports whether one did.
func (m *Mux) hand(o offer, to *listener, deadline time.Time) bool {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case to.offers <- o:
		return true
	case <-to.closed:
	case <-o.waiter.gone:
	case <-late.C:
	}
	return false
}

// Close stops accepting, closes every connection that no server has yet, and waits
// for the goroutines that decide. Connections that servers accepted stay theirs.
func (m *Mux) Close() error {
	var err error
	m.closeOnce.Do(func() {
		close(m.closed)
		err = m.root.Close()
		for _, l := range m.listeners {
			_ = l.Close() // never fails
		}
	})
	m.waiting.close()
	return err
}
