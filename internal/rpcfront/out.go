package rpcfront

import (
	"context"
	"encoding/binary"
	"math"
	"runtime"
	"slices"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/mem"
)

// outBytesMax is how much may wait for the socket. Responses beyond it wait as messages, and the
// client is not read when control frames that it causes do not fit.
const outBytesMax = 1 << 20

// noFrame says that there is no data frame.
const noFrame = -1

// out is the output to the client. It is guarded by conn.mu.
type out struct {
	conn    *conn
	buf     *[]byte // frames, from Server.answers while there are any
	framer  *http2.Framer
	last    int  // where in buf the last frame of data from here begins; noFrame: there is none
	writing bool // somebody writes to the socket, and will write all there is
	sent    bool // headers or data, since the last ping

	headerListMax int     // what the client takes of the headers of an answer
	window        int64   // and of data on the connection
	streamWindow  int64   // and at first on each stream
	waiting       []*call // for room, with the rest of what they send; parked ones are not in it
	table         table
}

func (o *out) init(c *conn) {
	o.conn, o.buf, o.last = c, new([]byte), noFrame
	o.framer = http2.NewFramer(o, nil)
	o.headerListMax, o.window, o.streamWindow = math.MaxInt, windowStart, windowStart
}

// Write implements io.Writer for the framer.
func (o *out) Write(p []byte) (int, error) {
	*o.buf = append(*o.buf, p...)
	return len(p), nil
}

// control adds a frame that is not subject to flow control.
func (o *out) control(write func(*http2.Framer) error) { _ = write(o.framer) } // to memory: it does not fail

func (o *out) headers(id uint32, flags http2.Flags, block string) {
	block = o.table.short(block)
	*o.buf = appendHeader(*o.buf, http2.FrameHeaders, flags|http2.FlagHeadersEndHeaders, id, len(block))
	*o.buf = append(*o.buf, block...)
	o.sent = true
}

// append adds the response of a call if there is room for it, and reports whether there was. c.mu
// is held.
func (c *conn) append(k *call, m Appender) bool {
	o, n := &c.out, m.Size()
	if !o.fits(k, n) {
		return false
	}
	if c.settle(k) {
		o.headers(k.id, 0, okHeaders)
		o.message(k, n)
		*o.buf = m.Append(*o.buf)
		k.tail = okTrailers
		o.end(k)
	}
	return true
}

// answer adds the response of a call.
func (c *conn) answer(k *call, msg mem.BufferSlice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.settle(k) {
		return
	}
	o := &c.out
	o.headers(k.id, 0, okHeaders)
	k.tail = okTrailers
	if o.send(k, msg) {
		o.end(k)
	}
}

// send adds a message if it fits, and reports whether it did. If not it is sent as room becomes
// available, followed by k.tail.
func (o *out) send(k *call, msg mem.BufferSlice) bool {
	n := msg.Len()
	if o.fits(k, n) {
		o.message(k, n)
		for _, part := range msg {
			*o.buf = append(*o.buf, part.ReadOnlyData()...)
		}
		return true
	}
	prefix := mem.SliceBuffer(appendPrefix(nil, n))
	k.rest = append(mem.BufferSlice{prefix}, msg...).Reader()
	o.waiting = append(o.waiting, k)
	o.pump()
	return false
}

// fits reports whether a message of n bytes can be added now, in one frame.
func (o *out) fits(k *call, n int) bool {
	n += prefixBytes
	return len(o.waiting) == 0 && len(o.conn.relay.queue) == 0 && len(*o.buf) < outBytesMax &&
		n <= frameBytesMax && int64(n) <= min(o.window, k.window)
}

// message adds the header and prefix of a message of n bytes that fits.
func (o *out) message(k *call, n int) {
	if !o.extend(k, prefixBytes+n) {
		o.frame(k, prefixBytes+n)
	}
	*o.buf = appendPrefix(*o.buf, n)
}

func appendPrefix(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0), uint32(n))
}

// end adds the headers that end a stream.
func (o *out) end(k *call) {
	o.headers(k.id, http2.FlagHeadersEndStream, k.tail)
	if k.stream != nil && !k.stream.in.ended { // the client need not say more
		o.control(func(fr *http2.Framer) error { return fr.WriteRSTStream(k.id, http2.ErrCodeNo) })
	}
	o.conn.drop(k)
}

// refuse adds a response that is an error.
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
	c.drop(k)
}

// settle records that a call was handled, and reports whether somebody waits for the response.
func (c *conn) settle(k *call) bool {
	k.answered = true
	if k.gone {
		c.resets--
		c.changed.Broadcast()
	}
	return !k.gone && !c.closed
}

// pump adds as much of the waiting data as the windows allow, of calls and of grpc-go in turn (F3).
func (o *out) pump() {
	for len(*o.buf) < outBytesMax {
		ours, behind := o.pumpCall(), o.conn.relay.pump()
		if !ours && !behind {
			return
		}
	}
}

// pumpCall adds a frame of the first waiting call whose window has room. One whose window has none
// waits elsewhere, so that it costs the others nothing.
func (o *out) pumpCall() bool {
	for len(o.waiting) > 0 {
		k := o.waiting[0]
		if !k.gone && k.window > 0 && o.window <= 0 {
			return false
		}
		o.waiting[0] = nil
		o.waiting = o.waiting[1:]
		switch {
		case k.gone:
		case k.window <= 0:
			k.parked = true
		default:
			o.data(k)
			return true
		}
	}
	return false
}

// data adds the next frame of a call's data.
func (o *out) data(k *call) {
	n := int(min(int64(k.rest.Remaining()), frameBytesMax, o.window, k.window))
	o.frame(k, n)
	at := len(*o.buf)
	*o.buf = slices.Grow(*o.buf, n)[:at+n]
	_, _ = k.rest.Read((*o.buf)[at:]) // as many as remain, at least
	switch {
	case k.rest.Remaining() > 0:
		o.waiting = append(o.waiting, k)
		return
	case k.tail != "":
		o.end(k)
	default:
		k.stream.changed.Broadcast()
	}
	k.release()
}

// frame adds the header of a frame with n bytes of data, which the windows allow.
func (o *out) frame(k *call, n int) {
	o.last = len(*o.buf)
	*o.buf = appendHeader(*o.buf, http2.FrameData, 0, k.id, n)
	o.take(k, n)
}

// extend makes room for n more bytes of data, which the windows allow, in the last frame if that
// belongs to the call and nothing follows it. Messages of a stream that are sent together then take
// one frame: its cost for the client is a good part of that of a small message.
func (o *out) extend(k *call, n int) bool {
	if o.last == noFrame {
		return false
	}
	frame := (*o.buf)[o.last:]
	size := payloadBytes(frame)
	if streamID(frame) != k.id || frameHeaderBytes+size != len(frame) || size+n > frameBytesMax {
		return false
	}
	appendHeader(frame[:0], http2.FrameData, 0, k.id, size+n)
	o.take(k, n)
	return true
}

// take takes n bytes of data from the windows.
func (o *out) take(k *call, n int) {
	o.window -= int64(n)
	k.window -= int64(n)
	o.sent = true
}

// unpark lets a call continue whose window has grown.
func (o *out) unpark(k *call) {
	if k.parked && k.window > 0 {
		k.parked = false
		o.waiting = append(o.waiting, k)
	}
}

// release discards what is not sent any more.
func (k *call) release() {
	if k.rest != nil {
		_ = k.rest.Close() // it only frees
		k.rest = nil
	}
}

// takeWindow handles a window update.
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

// widen is takeWindow for the connection and for an active call.
func (c *conn) widen(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		return widen(&c.out.window, f)
	}
	if k := c.calls[f.StreamID]; k != nil {
		err := widen(&k.window, f)
		c.out.unpark(k)
		return err
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

// resizeWindows changes the initial window of streams. It applies to open streams, too.
func (c *conn) resizeWindows(bytes int64) error {
	c.mu.Lock()
	by := bytes - c.out.streamWindow
	c.out.streamWindow = bytes
	tooWide := false
	for _, k := range c.calls {
		k.window += by
		c.out.unpark(k)
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

// flush writes the output, unless another goroutine is doing so.
func (c *conn) flush() {
	if c.claim() {
		c.write()
	}
}

// flushSoon does so after others who are about to respond have added to it.
func (c *conn) flushSoon() {
	if c.claim() {
		runtime.Gosched()
		c.write()
	}
}

// kickHeld is kick with c.mu held.
func (c *conn) kickHeld() {
	if c.claimed() {
		c.server.workers.Do(writer{c})
	}
}

// kick has a worker write the output: the reader must not wait for the socket, or two peers that each wait for the other to
// read would deadlock.
func (c *conn) kick() {
	if c.claim() {
		c.server.workers.Do(writer{c})
	}
}

// claim makes the caller the writer.
func (c *conn) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claimed()
}

// claimed is claim with c.mu held.
func (c *conn) claimed() bool {
	if c.out.writing || c.closed || len(*c.out.buf)+len(c.ready) == 0 && !c.finished() {
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

// Run implements workers.Job. Neither responses to pings nor what arrived during a write, nor
// responses of started calls, are urgent: others may add to them.
func (w writer) Run() {
	runtime.Gosched()
	w.conn.write()
}

// write writes to the socket once, and has a worker write what was added meanwhile.
func (c *conn) write() {
	o, s := &c.out, c.server
	c.mu.Lock()
	if len(c.ready) > 0 {
		c.encodeReady() // lets go of the lock meanwhile
	}
	c.pongs.written(len(*o.buf))
	buf := o.buf
	o.buf, o.last = s.answers.get(), noFrame
	c.mu.Unlock()
	_, err := c.nc.Write(*buf)
	s.answers.put(buf)
	c.mu.Lock()
	o.pump()
	credit := c.relay.takeCredit()
	more := len(*o.buf)+len(c.ready) > 0 && !c.closed
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

// encodeReady adds the responses that are ready. c.mu is held at the beginning and the end: those
// for which there is room are added under it, all at once.
func (c *conn) encodeReady() {
	answers := c.ready
	c.ready, c.encoding = c.encoding[:0], answers
	for i := range answers {
		a := &answers[i]
		if m := c.server.appender(a.resp, a.err); m != nil {
			a.done = c.append(a.call, m)
		}
	}
	c.mu.Unlock()
	for _, a := range answers {
		if a.done {
			a.call.finish(context.Canceled) // F5
		} else {
			a.call.respond(a.resp, a.err)
		}
	}
	clear(answers)
	c.mu.Lock()
}
