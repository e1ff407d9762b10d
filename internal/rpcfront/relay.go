package rpcfront

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// relayWindow is how many bytes of grpc-go's data may wait here for the client's window.
	relayWindow = 1 << 20
	// pipeBytesMax is how much may wait for grpc-go to read it (F6).
	pipeBytesMax = 1 << 20
)

// relay is the connection as grpc-go sees it. The connection window is between grpc-go and this
// package; stream windows are between grpc-go and the client.
type relay struct {
	conn *conn

	pipe struct { // from the client to grpc-go
		sync.Mutex
		changed sync.Cond
		buf     []byte
		at      int           // read up to here
		framer  *http2.Framer // appends to buf
		closed  bool
	}
	encoder *hpack.Encoder // the reader's, like block
	block   bytes.Buffer

	// Guarded by conn.mu.
	partial []byte // a frame that grpc-go has not written whole
	queue   []byte // frames that wait for the client's window of the connection, and what must not overtake them
	sent    int    // bytes of data that grpc-go's window is not given back yet
}

func (r *relay) init(c *conn) {
	r.conn = c
	r.pipe.changed.L = &r.pipe
	r.pipe.framer = http2.NewFramer(pipeWriter{r}, nil)
	r.encoder = hpack.NewEncoder(&r.block)
}

type pipeWriter struct{ relay *relay }

func (w pipeWriter) Write(p []byte) (int, error) {
	w.relay.append(p)
	return len(p), nil
}

// append adds bytes to the pipe, whose lock is held.
func (r *relay) append(p []byte) {
	r.pipe.buf, r.pipe.at = compact(r.pipe.buf, r.pipe.at, len(p))
	r.pipe.buf = append(r.pipe.buf, p...)
}

// give passes bytes to grpc-go, from the reader.
func (r *relay) give(p []byte) {
	r.frame(func(*http2.Framer) error {
		r.append(p)
		return nil
	})
}

// frame passes frames to grpc-go, from the reader, which blocks while too much waits.
func (r *relay) frame(write func(*http2.Framer) error) {
	r.pipe.Lock()
	for len(r.pipe.buf)-r.pipe.at > pipeBytesMax && !r.pipe.closed {
		r.pipe.changed.Wait()
	}
	_ = write(r.pipe.framer) // to memory: it does not fail
	r.pipe.changed.Broadcast()
	r.pipe.Unlock()
}

// open opens a stream at grpc-go.
func (r *relay) open(id uint32, fields []headerField, ended bool) {
	r.conn.mu.Lock()
	r.conn.relayed[id] = struct{}{}
	r.conn.mu.Unlock()
	r.block.Reset()
	for _, f := range fields {
		_ = r.encoder.WriteField(f) // to memory: it does not fail
	}
	r.frame(func(fr *http2.Framer) error {
		part := r.block.Next(frameBytesMax)
		err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: part, EndStream: ended, EndHeaders: r.block.Len() == 0})
		for err == nil && r.block.Len() > 0 {
			part = r.block.Next(frameBytesMax)
			err = fr.WriteContinuation(id, r.block.Len() == 0, part)
		}
		return err
	})
}

// end tells grpc-go that the client is gone.
func (r *relay) end() {
	r.pipe.Lock()
	defer r.pipe.Unlock()
	r.pipe.closed = true
	r.pipe.changed.Broadcast()
}

// Read implements net.Conn.
func (r *relay) Read(p []byte) (int, error) {
	r.pipe.Lock()
	defer r.pipe.Unlock()
	for r.pipe.at == len(r.pipe.buf) {
		if r.pipe.closed {
			return 0, io.EOF
		}
		r.pipe.changed.Wait()
	}
	n := copy(p, r.pipe.buf[r.pipe.at:])
	if r.pipe.at += n; r.pipe.at == len(r.pipe.buf) {
		r.pipe.at, r.pipe.buf = 0, r.pipe.buf[:0]
		if cap(r.pipe.buf) > bufferBytesMax {
			r.pipe.buf = nil
		}
	}
	r.pipe.changed.Broadcast()
	return n, nil
}

// Write implements net.Conn: it receives frames for the client.
func (r *relay) Write(p []byte) (int, error) {
	c := r.conn
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	frames := p
	if len(r.partial) > 0 {
		frames = append(r.partial, p...)
	}
	for n := unit(frames); n > 0; n = unit(frames) {
		r.pass(frames[:n])
		frames = frames[n:]
	}
	r.partial = append(r.partial[:0], frames...)
	credit := r.takeCredit()
	c.mu.Unlock()
	r.widen(credit)
	c.flush()
	return len(p), nil
}

// pass adds a frame to the output to the client, or to the queue.
func (r *relay) pass(frame []byte) {
	o := &r.conn.out
	switch kind := frameType(frame); kind {
	case http2.FrameData:
	case http2.FrameHeaders, http2.FrameRSTStream:
		o.table.lost = o.table.lost || kind == http2.FrameHeaders // also if it waits: it is encoded
		if kind == http2.FrameRSTStream || frameFlags(frame).Has(http2.FlagHeadersEndStream) {
			delete(r.conn.relayed, streamID(frame))
		}
	case http2.FrameWindowUpdate:
		*o.buf = append(*o.buf, frame...)
		return
	case http2.FrameGoAway:
		at := len(*o.buf) + frameHeaderBytes
		*o.buf = append(*o.buf, frame...)
		if last := (*o.buf)[at:]; binary.BigEndian.Uint32(last)&windowMax != windowMax {
			binary.BigEndian.PutUint32(last, r.conn.lastID) // it has not seen all streams
			r.conn.leaving = binary.BigEndian.Uint32(last[4:]) == uint32(http2.ErrCodeNo)
		}
		return
	default: // settings and pings
		*o.buf = append(*o.buf, frame...)
		return
	}
	if len(r.queue) > 0 || !r.send(frame) {
		r.queue = append(r.queue, frame...)
		r.pump()
	}
}

// send sends headers, a reset, or data for which there is room.
func (r *relay) send(frame []byte) bool {
	o := &r.conn.out
	if frameType(frame) == http2.FrameData {
		n := payloadBytes(frame)
		if int64(n) > o.window {
			return false
		}
		o.window -= int64(n)
		r.sent += n
	}
	*o.buf = append(*o.buf, frame...)
	o.sent = true
	return true
}

// pump sends a frame of the queue, or as much of it as there is room for.
func (r *relay) pump() bool {
	if len(r.queue) == 0 {
		return false
	}
	o := &r.conn.out
	n := unit(r.queue)
	if r.send(r.queue[:n]) {
		r.queue = r.queue[n:]
		if len(r.queue) == 0 {
			r.queue = nil
		}
		return true
	}
	room := int(o.window)
	if room <= 0 {
		return false
	}
	// The first bytes, and the header again in front of the rest. grpc-go does not pad.
	head := r.queue[:frameHeaderBytes]
	flags, id, left := frameFlags(head), streamID(head), payloadBytes(head)-room
	*o.buf = appendHeader(*o.buf, http2.FrameData, 0, id, room)
	*o.buf = append(*o.buf, r.queue[frameHeaderBytes:frameHeaderBytes+room]...)
	r.queue = r.queue[room:]
	appendHeader(r.queue[:0], http2.FrameData, flags, id, left)
	o.window = 0
	o.sent = true
	r.sent += room
	return true
}

// takeCredit returns by how much grpc-go's window is to be widened; 0 while that is little. conn.mu
// is held.
func (r *relay) takeCredit() int {
	if r.sent < relayWindow/4 {
		return 0
	}
	n := r.sent
	r.sent = 0
	return n
}

// widen widens grpc-go's connection window.
func (r *relay) widen(n int) {
	if n == 0 {
		return
	}
	r.pipe.Lock()
	defer r.pipe.Unlock()
	_ = r.pipe.framer.WriteWindowUpdate(0, uint32(n)) // to memory: it does not fail
	r.pipe.changed.Broadcast()
}

// Close implements net.Conn: grpc-go is done with the connection.
func (r *relay) Close() error {
	r.end()
	r.conn.leave()
	return nil
}

// LocalAddr implements net.Conn.
func (r *relay) LocalAddr() net.Addr { return r.conn.nc.LocalAddr() }

// RemoteAddr implements net.Conn.
func (r *relay) RemoteAddr() net.Addr { return clientAddr{r.conn.nc.RemoteAddr(), r.conn} }

// SetDeadline implements net.Conn. grpc-go bounds the handshake with it.
func (r *relay) SetDeadline(t time.Time) error { return r.conn.nc.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (r *relay) SetReadDeadline(t time.Time) error { return r.conn.nc.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (r *relay) SetWriteDeadline(t time.Time) error { return r.conn.nc.SetWriteDeadline(t) }

// relayListener is where grpc-go accepts relays.
type relayListener struct {
	addr   net.Addr
	relays chan *relay
	once   sync.Once
	closed chan struct{}
}

func newRelayListener(addr net.Addr) *relayListener {
	return &relayListener{addr: addr, relays: make(chan *relay), closed: make(chan struct{})}
}

// offer waits for grpc-go to accept a relay, and reports whether it has.
func (l *relayListener) offer(r *relay) bool {
	select {
	case l.relays <- r:
		return true
	case <-l.closed:
		return false
	}
}

// Accept implements net.Listener.
func (l *relayListener) Accept() (net.Conn, error) {
	select {
	case r := <-l.relays:
		return r, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *relayListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *relayListener) Addr() net.Addr { return l.addr }
