package peer

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/mem"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/shard"
)

// frame is an encoded routerpb.Frame to be sent on a stream. It implements rpcfront.Appender, and
// the codec sends it as it is.
type frame struct {
	buf      *[]byte // from buffers; nil once gRPC owns it
	messages int     // how many it holds
	buffers  *frameBuffers
	held     *held // nil if no reply in it holds room
}

// held is the memory of a frame in which replies hold room. It is the pool of that memory: gRPC takes a frame long before
// it has sent it, and returns the memory once it has. The room is returned then, or when the stream ends, because gRPC
// returns nothing of what it cannot send any more.
type held struct {
	buffers *frameBuffers
	mu      struct {
		sync.Mutex
		sent []func()    // return the room; nil once it was
		stop func() bool // ends the wait for the stream's end
	}
}

var _ mem.BufferPool = (*held)(nil)

// Get implements mem.BufferPool.
func (h *held) Get(size int) *[]byte { return h.buffers.Get(size) }

// Put implements mem.BufferPool: nobody uses the buffer any more.
func (h *held) Put(buf *[]byte) {
	h.buffers.Put(buf)
	h.leave()
}

// until has the room returned when ctx ends, at the latest.
func (h *held) until(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.stop = context.AfterFunc(ctx, h.leave)
}

// leave returns the room. It may be called more than once.
func (h *held) leave() {
	h.mu.Lock()
	sent, stop := h.mu.sent, h.mu.stop
	h.mu.sent, h.mu.stop = nil, nil
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
	for _, f := range sent {
		f()
	}
}

// hold has a reply that is in the frame hold its room.
func (f *frame) hold(sent func()) {
	if f.held == nil {
		f.held = &held{buffers: f.buffers}
	}
	f.held.mu.sent = append(f.held.mu.sent, sent) // gRPC does not have the frame yet
}

// close adds the fields that end a frame.
func (f *frame) close(highest shard.Revision) {
	*f.buf = etcdwire.AppendUint(*f.buf, frameRevision, uint64(highest))
}

// Size implements rpcfront.Appender.
func (f *frame) Size() int { return len(*f.buf) }

// Append implements rpcfront.Appender.
func (f *frame) Append(b []byte) []byte { return append(b, *f.buf...) }

// give passes the frame's bytes to gRPC, which returns them to buffers.
func (f *frame) give() mem.BufferSlice {
	var pool mem.BufferPool = f.buffers
	if f.held != nil {
		pool = f.held
		if mem.IsBelowBufferPoolingThreshold(cap(*f.buf)) { // gRPC does not return them
			defer f.held.leave()
		}
	}
	b := mem.NewBuffer(f.buf, pool)
	f.buf = nil
	return mem.BufferSlice{b}
}

// free returns the frame's bytes to buffers, and the room of its replies, unless gRPC owns them and will.
func (f *frame) free() {
	if f.buf == nil {
		return
	}
	f.buffers.Put(f.buf)
	f.buf = nil
	if f.held != nil {
		f.held.leave()
	}
}

// grow makes room for n bytes. It does not leave this to append, which adds only a quarter at a time and
// so copies a large frame several times.
func (f *frame) grow(n int) {
	if have := len(*f.buf); cap(*f.buf)-have < n {
		*f.buf = slices.Grow(*f.buf, max(n, have))
	}
}

// full reports whether a message of n bytes must go into another frame.
func (f *frame) full(n, frameBytes int) bool {
	return f.messages == frameMessagesMax || f.messages > 0 && len(*f.buf)+n > frameBytes
}

// frameKeptMax is the largest buffer that is kept for reuse: twice a frame of a native client.
const frameKeptMax = 2 << 20

// frameBuffers are buffers that no frame uses. It is a mem.BufferPool, so that gRPC can return
// them.
type frameBuffers struct{ pool sync.Pool }

func newFrameBuffers() *frameBuffers {
	return &frameBuffers{sync.Pool{New: func() any { return new([]byte) }}}
}

var _ mem.BufferPool = (*frameBuffers)(nil)

func (b *frameBuffers) frame() frame { return frame{buf: b.pool.Get().(*[]byte), buffers: b} }

// Get implements mem.BufferPool.
func (b *frameBuffers) Get(size int) *[]byte {
	buf := b.pool.Get().(*[]byte)
	*buf = slices.Grow(*buf, size)[:size]
	return buf
}

// Put implements mem.BufferPool.
func (b *frameBuffers) Put(buf *[]byte) {
	if cap(*buf) <= frameKeptMax {
		*buf = (*buf)[:0]
		b.pool.Put(buf)
	}
}

// outbox holds the requests that wait to be sent, encoded in frames: once a request is here, its
// caller may change what it was made from. It is guarded by link.mu.
type outbox struct {
	bounds  bounds
	buffers *frameBuffers
	frames  []*outgoing // in order. Requests are added to the last one; every other one has calls
	calls   int
	bytes   int // of their requests
}

// outgoing is a frame of requests.
type outgoing struct {
	frame
	parts []part
	dead  int // bytes of requests whose callers have given up
}

// part is one request in a frame.
type part struct {
	call *call // nil when it was abandoned
	end  int   // where its bytes in the frame end
}

// full reports whether the queue has no room for another request.
func (o *outbox) full() bool { return o.calls >= queueRequestsMax || o.bytes > queueBytesMax }

// add appends a request to the last frame. Its call has its ID already.
func (o *outbox) add(c *call, r *request) {
	var f *outgoing
	if n := len(o.frames); n > 0 {
		f = o.frames[n-1]
	}
	if f == nil || f.full(r.bytes+2*idBytesMax, o.bounds.FrameBytes) {
		f = &outgoing{frame: o.buffers.frame()}
		o.frames = append(o.frames, f)
	}
	start := len(*f.buf)
	f.grow(r.bytes + 2*idBytesMax)
	*f.buf = r.append(*f.buf, c.id)
	c.waits, c.at, c.bytes = f, len(f.parts), len(*f.buf)-start
	f.parts = append(f.parts, part{c, len(*f.buf)})
	f.messages++
	o.calls++
	o.bytes += c.bytes
}

// drop removes the request of a waiting call. The bytes of dropped requests are removed once they are
// half of the frame.
func (o *outbox) drop(c *call) {
	f := c.waits
	f.parts[c.at].call = nil
	c.waits = nil
	f.dead += c.bytes
	f.messages--
	o.calls--
	o.bytes -= c.bytes
	if f.dead > len(*f.buf)/2 {
		f.compact()
	}
	if last := o.frames[len(o.frames)-1]; f.messages == 0 && f != last {
		f.free()
		o.frames = slices.DeleteFunc(o.frames, func(g *outgoing) bool { return g == f })
	}
}

// compact removes the bytes of abandoned requests.
func (f *outgoing) compact() {
	buf, parts, start := (*f.buf)[:0], f.parts[:0], 0
	for _, p := range f.parts {
		if p.call != nil {
			buf = append(buf, (*f.buf)[start:p.end]...) // to the left
			p.call.at = len(parts)
			parts = append(parts, part{p.call, len(buf)})
		}
		start = p.end
	}
	clear(f.parts[len(parts):])
	*f.buf, f.parts, f.dead = buf, parts, 0
}

// next returns the next frame to send; nil if nothing waits.
func (o *outbox) next() *outgoing {
	if o.calls == 0 {
		return nil
	}
	f := o.frames[0]
	o.frames = slices.Delete(o.frames, 0, 1)
	if f.dead > 0 {
		f.compact()
	}
	for _, p := range f.parts {
		p.call.waits, p.call.sent = nil, true
		o.bytes -= p.call.bytes
	}
	o.calls -= len(f.parts)
	return f
}
