package rpcfront

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/peer"
)

const (
	// readBytes is the size of one read.
	readBytes = 32 << 10
	// headerListBytesMax and headerTableBytes are grpc-go's.
	headerListBytesMax = 16 << 20
	headerTableBytes   = 4096
	// resetsMax is how many handlers may be running for calls that their client has reset (F6).
	resetsMax = 4096
)

// conn is a client's connection.
type conn struct {
	server *Server
	nc     net.Conn
	values context.Context // of all calls
	gone   context.Context // ends with the connection
	ended  context.CancelFunc
	relay  relay

	// Owned by the reader.
	in       *bufio.Reader
	framer   *http2.Framer // of in, for all but the commonest frames
	headers  headerReader
	known    []known
	profiles map[string]*profile // by path
	recent   *profile
	asked    map[uint32]*call // calls that have not come whole
	taken    int              // bytes that the client's window of the connection is not given back yet
	pings    pings
	relaying bool // everything: what the client wants of headers is left to grpc-go

	mu        sync.Mutex
	changed   sync.Cond // what the reader waits for
	out       out
	calls     map[uint32]*call // under way
	ready     []ready          // answers of some of them
	encoding  []ready          // the writer's: those that are being added to out, and room for the next ones
	deadlines deadlines        // of calls
	pongs     pongs
	relayed   map[uint32]struct{} // streams that are grpc-go's
	lastID    uint32              // of the client's streams
	resets    int                 // handlers at work for nobody
	begun     bool                // the client has sent all that a connection begins with
	leaving   bool                // the client was told that further streams are not served
	left      bool                // grpc-go is done with the connection: it ends with its last call
	awaits    bool                // it writes at the next moment
	closed    bool
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server: s, nc: nc, in: bufio.NewReaderSize(nc, readBytes), profiles: make(map[string]*profile),
		asked: make(map[uint32]*call), calls: make(map[uint32]*call), relayed: make(map[uint32]struct{}),
	}
	c.gone, c.ended = context.WithCancel(context.Background())
	c.values = peer.NewContext(context.Background(), &peer.Peer{Addr: clientAddr{nc.RemoteAddr(), c}, LocalAddr: nc.LocalAddr()})
	c.framer = http2.NewFramer(nil, c.in)
	c.framer.SetMaxReadFrameSize(frameBytesMax)
	c.framer.MaxHeaderListSize = headerListBytesMax
	c.headers.init()
	c.framer.ReadMetaHeaders = c.headers.decoder
	c.changed.L = &c.mu
	c.out.init(c)
	c.relay.init(c)
	c.deadlines.conn, c.pongs.conn = c, c
	return c
}

// read reads from the client until the connection ends, and sends it the reason if it is at fault.
func (c *conn) read() {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.in, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	c.relay.give(preface)
	err := c.next(true)
	c.relay.widen(relayWindow - windowStart) // grpc-go takes it after the client's settings only
	for ; err == nil; err = c.next(false) {
	}
	if why := (goAway{}); errors.As(err, &why) {
		c.mu.Lock()
		c.out.control(func(fr *http2.Framer) error { return fr.WriteGoAway(c.lastID, why.code, []byte(why.text)) })
		c.mu.Unlock()
		c.flush()
		// Closing a connection with unread data resets it, so that the client does not learn why.
		// grpc-go does the same.
		_ = c.nc.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, c.in)
	}
}

// next reads a frame. An error ends the connection.
func (c *conn) next(first bool) error {
	if err := c.frame(first); err != nil {
		return c.failed(err)
	}
	return nil
}

// failed ends the stream that an error concerns, or else returns why the connection ends.
func (c *conn) failed(err error) error {
	var stream http2.StreamError
	var connection http2.ConnectionError
	switch {
	case errors.As(err, &stream):
		c.reset(stream.StreamID, stream.Code)
		return nil
	case errors.As(err, &connection):
		return goAway{code: http2.ErrCode(connection)}
	case errors.Is(err, http2.ErrFrameTooLarge):
		return goAway{code: http2.ErrCodeFrameSize}
	}
	return err
}

// frame reads a frame. The most frequent ones are examined in place in the buffer.
func (c *conn) frame(first bool) error {
	head, err := c.in.Peek(frameHeaderBytes)
	if err != nil {
		return err
	}
	kind, flags, id, n := frameType(head), frameFlags(head), streamID(head), payloadBytes(head)
	switch {
	case n > frameBytesMax:
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	case first && kind != http2.FrameSettings:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case kind == http2.FrameData && !flags.Has(http2.FlagDataPadded) && id != 0:
		frame, err := c.in.Peek(frameHeaderBytes + n)
		if err != nil {
			return err
		}
		err = c.takeData(id, frame, flags.Has(http2.FlagDataEndStream))
		c.in.Discard(len(frame))
		return err
	case kind == http2.FrameHeaders && flags == http2.FlagHeadersEndHeaders:
		frame, err := c.in.Peek(frameHeaderBytes + n)
		if err != nil {
			return err
		}
		return c.takeBlock(id, frame)
	}
	f, err := c.framer.ReadFrame()
	if err != nil {
		return err
	}
	if first { // before grpc-go knows: it tells the client, who may call then, and needs to hear of a Leave
		c.setBegun()
	}
	return c.take(f)
}

// takeBlock handles headers that arrived in one frame. Most were seen before, except for the
// timeout.
func (c *conn) takeBlock(id uint32, frame []byte) error {
	block := frame[frameHeaderBytes:]
	for i := range c.known {
		if k := &c.known[i]; bytes.Equal(k.block, block) {
			c.in.Discard(len(frame))
			return c.open(id, k.fields, k.profile, false)
		}
	}
	fields, p, err := c.decode(id, block)
	if err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	switch {
	case !constant(block):
		c.known = nil // the table moves on
	case len(c.known) < knownMax:
		fields = slices.Clone(fields)
		c.known = append(c.known, known{bytes.Clone(block), fields, p})
	}
	c.in.Discard(len(frame))
	if p == nil && listBytes(fields) > headerListBytesMax {
		return errTruncated(id)
	}
	return c.open(id, fields, p, false)
}

// take handles a frame from the framer.
func (c *conn) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		c.known, c.headers.shapes.lost = nil, true // the table has moved on
		return c.takeHeaders(f)
	case *http2.DataFrame:
		return c.takePadded(f)
	case *http2.RSTStreamFrame:
		return c.takeReset(f)
	case *http2.WindowUpdateFrame:
		return c.takeWindow(f)
	case *http2.SettingsFrame:
		return c.takeSettings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.takePing(f)
		}
		c.relay.frame(func(fr *http2.Framer) error { return fr.WritePing(true, f.Data) })
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil // priorities, the client's going away, and what nobody knows mean nothing, as to grpc-go
}

func (c *conn) takeSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		c.relay.frame(func(fr *http2.Framer) error { return fr.WriteSettingsAck() })
		return nil
	}
	var settings []http2.Setting
	err := f.ForeachSetting(func(s http2.Setting) error {
		settings = append(settings, s)
		if err := s.Valid(); err != nil {
			return err
		}
		switch {
		case s.ID == http2.SettingInitialWindowSize:
			return c.resizeWindows(int64(s.Val))
		case s.ID == http2.SettingHeaderTableSize && s.Val < headerTableBytes:
			c.relaying = true // an encoder has to say that it heeds it
			c.mu.Lock()
			c.out.table.lost = true
			c.mu.Unlock()
		case s.ID == http2.SettingMaxHeaderListSize:
			c.mu.Lock()
			c.out.headerListMax = int(s.Val)
			c.mu.Unlock()
			c.relaying = c.relaying || s.Val < okHeaderListBytes
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.awaitRoom()
	c.mu.Unlock()
	// grpc-go acknowledges them, once they apply to its streams too.
	c.relay.frame(func(fr *http2.Framer) error { return fr.WriteSettings(settings...) })
	return nil
}

// control sends a frame from the reader, which waits while too much is queued (F6).
func (c *conn) control(write func(*http2.Framer) error) {
	c.mu.Lock()
	c.out.control(write)
	c.awaitRoom()
	c.mu.Unlock()
	c.kick()
}

// awaitRoom blocks the reader until the frames that it caused fit. c.mu is held.
func (c *conn) awaitRoom() {
	for len(*c.out.buf) > outBytesMax && !c.closed {
		c.changed.Wait()
	}
}

// streams counts the open streams, for the reader. c.mu is held.
func (c *conn) streams() int { return len(c.asked) + len(c.calls) + len(c.relayed) }

// leave ends the connection because grpc-go does: after its last call if the client was told so.
// Otherwise the client is at fault, or does not answer; then nobody waits for it.
func (c *conn) leave() {
	c.mu.Lock()
	told := c.leaving
	c.leaving, c.left = true, true
	c.mu.Unlock()
	if told {
		c.flush()
		return
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	c.flush()
	c.close()
}

func (c *conn) setBegun() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = true
}

func (c *conn) hasBegun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

// answering reports whether the client may still make calls, or has not been sent all answers to those it has made.
// A request of which a part has not arrived does not count: nobody works on it.
func (c *conn) answering() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return false
	case !c.leaving, c.out.writing, len(*c.out.buf) > 0, len(c.ready) > 0, len(c.relayed) > 0:
		return true
	}
	for _, k := range c.calls {
		if k.stream == nil {
			return true
		}
	}
	return false
}

// close ends the connection and all of its calls, once.
func (c *conn) close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	calls := c.calls
	c.calls = nil
	c.deadlines.stop()
	c.pongs.stop()
	c.changed.Broadcast()
	for _, k := range calls {
		if k.stream != nil {
			k.stream.changed.Broadcast()
		}
	}
	c.mu.Unlock()
	c.nc.Close()
	c.ended()
	c.relay.end()
	for _, k := range calls {
		k.finish(context.Canceled) // F5
	}
}
