package rpcfront

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// sendBytes is about how much waits for Stream.Flush at most.
const sendBytes = 64 << 10

// Appender is a message that marshals itself at the end of the output. A message that has to wait
// is marshalled by its codec instead.
type Appender interface {
	// Size is the number of bytes that Append adds.
	Size() int
	// Append adds the message to b. It is called with a lock held.
	Append(b []byte) []byte
}

// Stream is a stream as its handler sees it. In addition to a grpc.ServerStream it can send several
// messages together.
type Stream struct {
	call call

	// Guarded by conn.mu.
	in      inbox
	headed  bool      // headers were sent
	changed sync.Cond // what a handler waits for: a message, the end of one, its stream's end
}

var _ grpc.ServerStream = (*Stream)(nil)

func newStream(c *conn, id uint32, p *profile) *call {
	s := &Stream{call: call{Context: p.ctx, conn: c, id: id, method: p.method}}
	s.call.stream = s
	s.in.window = streamWindow
	s.changed.L = &c.mu
	return &s.call
}

type streamKey struct{}

// StreamOf returns the stream of a context; nil when it is served by grpc-go.
func StreamOf(ctx context.Context) *Stream {
	s, _ := ctx.Value(streamKey{}).(*Stream)
	return s
}

// Run handles the stream. It implements workers.Job.
func (s *Stream) Run() {
	k := &s.call
	desc, intercept := k.method.stream, k.conn.server.cfg.StreamInterceptor
	var err error
	if intercept == nil {
		err = desc.Handler(k.method.impl, s)
	} else {
		info := &grpc.StreamServerInfo{FullMethod: k.method.path, IsClientStream: true, IsServerStream: true}
		err = intercept(k.method.impl, s, info, desc.Handler)
	}
	c := k.conn
	c.mu.Lock()
	c.settle(k)
	c.mu.Unlock()
	s.conclude(err)
}

// conclude ends the stream with a status, unless it has one.
func (s *Stream) conclude(err error) {
	k, c := &s.call, s.call.conn
	c.mu.Lock()
	if !s.over() {
		var listBytes int
		if s.headed {
			k.tail, listBytes = outcome(err)
		} else {
			k.tail, listBytes = refusal(err)
		}
		switch o := &c.out; {
		case listBytes > o.headerListMax: // as grpc-go does
			c.drop(k)
			o.control(func(fr *http2.Framer) error { return fr.WriteRSTStream(k.id, http2.ErrCodeInternal) })
		case k.rest == nil:
			o.end(k)
		default: // behind the message that is being sent, for whose end nobody waits now
			s.changed.Broadcast()
		}
	}
	c.mu.Unlock()
	k.finish(context.Canceled) // F5
	c.flush()
}

// over reports whether nothing can be sent or received any more. conn.mu is held.
func (s *Stream) over() bool { return s.call.gone || s.call.tail != "" || s.call.conn.closed }

// lost is the reason.
func (s *Stream) lost() error {
	s.call.finish(context.Canceled) // whoever ended the stream is about to
	return status.FromContextError(s.call.Err()).Err()
}

// SendMsg implements grpc.ServerStream. It returns when the message is in the output.
func (s *Stream) SendMsg(m any) error {
	err := s.SendLater(m)
	if err == nil {
		s.Flush()
	}
	return err
}

// SendLater is SendMsg of a message that may wait for Flush.
func (s *Stream) SendLater(m any) error {
	err := s.send(m)
	if err != nil {
		s.conclude(err)
	}
	return err
}

// Flush sends the waiting messages.
func (s *Stream) Flush() { s.call.conn.flush() }

func (s *Stream) send(m any) error {
	if a, ok := m.(Appender); ok && s.append(a) {
		return nil
	}
	msg, err := encode(s.call.conn.server, m)
	if err != nil {
		return err
	}
	defer msg.Free()
	return s.await(msg)
}

// append adds a message for which there is room, and reports whether there was.
func (s *Stream) append(m Appender) bool {
	c := s.call.conn
	c.mu.Lock()
	o, n := &c.out, m.Size()
	if s.over() || !o.fits(&s.call, n) {
		c.mu.Unlock()
		return false
	}
	s.head()
	o.message(&s.call, n)
	*o.buf = m.Append(*o.buf)
	enough := len(*o.buf) >= sendBytes
	c.mu.Unlock()
	if enough {
		c.flush()
	}
	return true
}

// await sends a message and waits until the last of it was added: a stream has at most one in
// memory (F6).
func (s *Stream) await(msg mem.BufferSlice) error {
	k, c := &s.call, s.call.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.over() {
		return s.lost()
	}
	s.head()
	if c.out.send(k, msg) && len(*c.out.buf) >= sendBytes {
		c.kickHeld()
	}
	for k.rest != nil && !s.over() {
		c.kickHeld() // the client gives us room when it has read
		s.changed.Wait()
	}
	if s.over() {
		return s.lost()
	}
	return nil
}

func (s *Stream) head() {
	if !s.headed {
		s.headed = true
		s.call.conn.out.headers(s.call.id, 0, okHeaders)
	}
}

// RecvMsg implements grpc.ServerStream.
func (s *Stream) RecvMsg(m any) error {
	err := s.receive(m)
	if err != nil && !errors.Is(err, io.EOF) {
		s.conclude(err)
	}
	return err
}

// Context implements grpc.ServerStream.
func (s *Stream) Context() context.Context { return &s.call }

// SetHeader implements grpc.ServerStream. There is no metadata in responses.
func (s *Stream) SetHeader(metadata.MD) error { return errMetadata }

// SendHeader implements grpc.ServerStream.
func (s *Stream) SendHeader(metadata.MD) error { return errMetadata }

// SetTrailer implements grpc.ServerStream. Since it cannot return an error, metadata would be lost
// silently.
func (s *Stream) SetTrailer(metadata.MD) { panic(errMetadata) }
