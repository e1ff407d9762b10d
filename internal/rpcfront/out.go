package rpcfront

import (
	"encoding/binary"
	"math"
	"runtime"
	"slices"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/mem"
)

// outBytesMax is how much may wait for the socket. Answers beyond it wait as messages, and the client is not read
// when what it makes us say does not fit.
const outBytesMax = 1 << 20

// out is what goes to the client. It is guarded by conn.mu.
type out struct {
	conn    *conn
	buf     *[]byte // frames, from Server.answers while there are any
	framer  *http2.Framer
	writing bool // somebody writes to the socket, and will write all there is
	sent    bool // headers or data, since the last ping

	headerListMax int     // what the client takes of the headers of an answer
	window        int64   // and of data on the connection
	streamWindow  int64   // and at first on each stream
	waiting       []*call // for a window, with the rest of their answers
}

func (o *out) init(c *conn) {
	o.conn, o.buf = c, new([]byte)
	o.framer = http2.NewFramer(o, nil)
	o.headerListMax, o.window, o.streamWindow = math.MaxInt, windowStart, windowStart
}

// Write implements io.Writer for the framer.
func (o *out) Write(p []byte) (int, error) {
	*o.buf = append(*o.buf, p...)
	return len(p), nil
}

// control adds a frame that no window holds back.
func (o *out) control(write func(*http2.Framer) error) { _ = write(o.framer) } // to memory: it does not fail

func (o *out) headers(id uint32, flags http2.Flags, block string) {
	*o.buf = appendHeader(*o.buf, http2.FrameHeaders, flags|http2.FlagHeadersEndHeaders, id, len(block))
	*o.buf = append(*o.buf, block...)
	o.sent = true
}

// answer adds the answer of a call.
func (c *conn) answer(k *call, msg mem.BufferSlice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.settle(k) {
		return
	}
	o := &c.out
	o.headers(k.id, 0, okHeaders)
	n := prefixBytes + msg.Len()
	if len(o.waiting) == 0 && len(c.relay.queue) == 0 && n <= frameBytesMax && int64(n) <= min(o.window, k.window) {
		*o.buf = appendHeader(*o.buf, http2.FrameData, 0, k.id, n)
		*o.buf = appendPrefix(*o.buf, msg)
		for _, part := range msg {
			*o.buf = append(*o.buf, part.ReadOnlyData()...)
		}
		o.window -= int64(n)
		o.end(k)
		return
	}
	prefix := mem.SliceBuffer(appendPrefix(nil, msg))
	k.rest = append(mem.BufferSlice{prefix}, msg...).Reader()
	o.waiting = append(o.waiting, k)
	o.pump()
}

func appendPrefix(b []byte, msg mem.BufferSlice) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0), uint32(msg.Len()))
}

// end adds the trailers of a call whose answer was added.
func (o *out) end(k *call) {
	o.headers(k.id, http2.FlagHeadersEndStream, okTrailers)
	k.gone = true
	delete(o.conn.calls, k.id)
}

// refuse adds an answer that is an error.
func (c *conn) refuse(k *call, err error) {
	block, listBytes := refusal(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch o := &c.out; {
	case !c.settle(k):
		return
	case listBytes > o.headerListMax: // as grpc-go does
		o.control(func(fr *http2.Framer) error { return fr.WriteRSTStream(k.id, http2.ErrCodeInternal) })
	default:
		o.headers(k.id, http2.FlagHeadersEndStream, block)
	}
	k.gone = true
	delete(c.calls, k.id)
}

// settle notes that a call was handled, and reports whether somebody waits for the answer.
func (c *conn) settle(k *call) bool {
	k.answered = true
	if k.gone {
		c.resets--
		c.changed.Broadcast()
	}
	return !k.gone && !c.closed
}

// pump adds what the windows allow of what waits for them, of calls and of grpc-go in turn (F3).
func (o *out) pump() {
	for len(*o.buf) < outBytesMax {
		ours, behind := o.pumpCall(), o.conn.relay.pump()
		if !ours && !behind {
			return
		}
	}
}

// pumpCall adds a frame of the first waiting call whose window has room.
func (o *out) pumpCall() bool {
	for range o.waiting {
		k := o.waiting[0]
		n := int(min(int64(k.rest.Remaining()), frameBytesMax, o.window, k.window))
		if n <= 0 && !k.gone {
			if o.window <= 0 {
				return false
			}
			o.waiting = append(o.waiting[1:], k)
			continue
		}
		o.waiting = o.waiting[1:]
		if k.gone {
			_ = k.rest.Close() // it only frees
			continue
		}
		o.data(k, n)
		if k.rest.Remaining() == 0 {
			_ = k.rest.Close()
			o.end(k)
		} else {
			o.waiting = append(o.waiting, k)
		}
		return true
	}
	return false
}

// data adds the next n bytes of a call's answer.
func (o *out) data(k *call, n int) {
	*o.buf = appendHeader(*o.buf, http2.FrameData, 0, k.id, n)
	at := len(*o.buf)
	*o.buf = slices.Grow(*o.buf, n)[:at+n]
	_, _ = k.rest.Read((*o.buf)[at:]) // as many as remain, at least
	o.window -= int64(n)
	k.window -= int64(n)
	o.sent = true
}

// takeWindow takes that the client takes more.
func (c *conn) takeWindow(f *http2.WindowUpdateFrame) error {
	if k := c.asked[f.StreamID]; k != nil {
		return widen(&k.window, f)
	}
	if c.isRelayed(f.StreamID) {
		c.relay.frame(func(fr *http2.Framer) error { return fr.WriteWindowUpdate(f.StreamID, f.Increment) })
		return nil
	}
	c.mu.Lock()
	err := c.widen(f)
	c.out.pump()
	c.mu.Unlock()
	c.kick()
	return err
}

// widen is takeWindow for the connection and for a call under way.
func (c *conn) widen(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		return widen(&c.out.window, f)
	}
	if k := c.calls[f.StreamID]; k != nil {
		return widen(&k.window, f)
	}
	if f.StreamID%2 == 0 || f.StreamID > c.lastID {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

func widen(window *int64, f *http2.WindowUpdateFrame) error {
	*window += int64(f.Increment)
	switch {
	case *window <= windowMax:
		return nil
	case f.StreamID == 0:
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	default:
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
}

// resizeWindows takes how much the client takes at first on each stream. It holds for those that are open, too.
func (c *conn) resizeWindows(bytes int64) error {
	c.mu.Lock()
	by := bytes - c.out.streamWindow
	c.out.streamWindow = bytes
	tooWide := false
	for _, k := range c.calls {
		k.window += by
		tooWide = tooWide || k.window > windowMax
	}
	c.out.pump()
	c.mu.Unlock()
	c.kick()
	if tooWide {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	return nil
}

// flush writes what there is, unless somebody does.
func (c *conn) flush() {
	if c.claim() {
		c.write()
	}
}

// flushSoon does so when others who are about to answer have added to it.
func (c *conn) flushSoon() {
	if c.claim() {
		runtime.Gosched()
		c.write()
	}
}

// kick has a worker write what there is: the reader must not wait for the socket, or two who both wait for the other to read
// would wait for ever.
func (c *conn) kick() {
	if c.claim() {
		c.server.workers.Do(writer{c})
	}
}

// claim makes the caller the one who writes.
func (c *conn) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.writing || c.closed || len(*c.out.buf) == 0 && !c.finished() {
		return false
	}
	c.out.writing = true
	return true
}

// finished reports whether the connection has nothing left to do. c.mu is held.
func (c *conn) finished() bool {
	return c.left && len(c.calls) == 0
}

type writer struct{ conn *conn }

// Run implements workers.Job. Neither answers to pings nor what came during a write are in a hurry: others may add to them.
func (w writer) Run() {
	runtime.Gosched()
	w.conn.write()
}

// write writes to the socket once, and has a worker write what came meanwhile.
func (c *conn) write() {
	o, s := &c.out, c.server
	c.mu.Lock()
	buf := o.buf
	o.buf = s.answers.get()
	c.mu.Unlock()
	_, err := c.nc.Write(*buf)
	s.answers.put(buf)
	c.mu.Lock()
	o.pump()
	credit := c.relay.takeCredit()
	more := len(*o.buf) > 0 && !c.closed
	o.writing = more
	over := !more && c.finished()
	c.changed.Broadcast()
	c.mu.Unlock()
	c.relay.widen(credit)
	switch {
	case err != nil || over:
		c.close()
	case more:
		s.workers.Do(writer{c})
	}
}
