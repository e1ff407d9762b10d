package portmux

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// replay gives back, once, the bytes that were read to decide.
type replay struct {
	// done is true when nothing is left; from then on a read costs one load more
	// than on the bare connection.
	done atomic.Bool
	mu   struct {
		sync.Mutex
		head []byte
	}
}

func (r *replay) init(head []byte) {
	r.mu.head = head
	r.done.Store(len(head) == 0)
}

// read fills p from the head; it returns 0 when the head is used up.
func (r *replay) read(p []byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := copy(p, r.mu.head)
	r.mu.head = r.mu.head[n:]
	if len(r.mu.head) == 0 {
		r.mu.head = nil
		r.done.Store(true)
	}
	return n
}

// writeTo sends the rest of the head to w.
func (r *replay) writeTo(w io.Writer) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := w.Write(r.mu.head)
	r.mu.head = r.mu.head[n:]
	if len(r.mu.head) == 0 {
		r.mu.head = nil
		r.done.Store(true)
	}
	return int64(n), err
}

// newConn returns c with head in front of what is still to be read.
func newConn(c net.Conn, head []byte) net.Conn {
	if tcp, ok := c.(*net.TCPConn); ok {
		conn := &tcpConn{TCPConn: tcp}
		conn.replay.init(head)
		return conn
	}
	conn := &plainConn{Conn: c}
	conn.replay.init(head)
	return conn
}

// tcpConn keeps everything of its *net.TCPConn: ReadFrom (sendfile, splice), vectored
// writes, keep-alive and the other socket options. Reads through SyscallConn or File
// do not see the replayed bytes.
type tcpConn struct {
	*net.TCPConn
	replay replay
}

func (c *tcpConn) Read(p []byte) (int, error) {
	if !c.replay.done.Load() {
		if n := c.replay.read(p); n > 0 {
			return n, nil
		}
	}
	return c.TCPConn.Read(p)
}

// WriteTo is overridden because the embedded one would skip the replayed bytes (M1).
func (c *tcpConn) WriteTo(w io.Writer) (int64, error) {
	var head int64
	if !c.replay.done.Load() {
		n, err := c.replay.writeTo(w)
		if err != nil {
			return n, err
		}
		head = n
	}
	n, err := c.TCPConn.WriteTo(w)
	return head + n, err
}

// NetConn returns the connection below, past the replayed bytes.
func (c *tcpConn) NetConn() net.Conn { return c.TCPConn }

// plainConn is a connection of any other kind, TLS for example.
type plainConn struct {
	net.Conn
	replay replay
}

func (c *plainConn) Read(p []byte) (int, error) {
	if !c.replay.done.Load() {
		if n := c.replay.read(p); n > 0 {
			return n, nil
		}
	}
	return c.Conn.Read(p)
}

// NetConn returns the connection below, past the replayed bytes.
func (c *plainConn) NetConn() net.Conn { return c.Conn }
