package rpcfront

import (
	"encoding/binary"
	"io"
	"slices"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// streamWindow is how much a client may send on a stream before any of it is received, as in
// grpc-go. A larger message gets as much as it needs.
const streamWindow = 1 << 20

// inbox is what arrived on a stream and was not received yet.
type inbox struct {
	buf    *[]byte // from Server.requests; nil: nothing
	at     int     // received up to here
	window int     // what the client may still send
	ended  bool    // the client sends no more
}

// take adds data of n bytes including its padding. conn.mu is held.
func (s *Stream) take(data []byte, n int, ended bool) {
	in := &s.in
	in.window -= n
	in.ended = ended
	if len(data) > 0 {
		if in.buf == nil {
			in.buf = s.call.conn.server.requests.get()
		}
		*in.buf, in.at = compact(*in.buf, in.at, len(data))
		if have := len(*in.buf); cap(*in.buf)-have < len(data) {
			*in.buf = slices.Grow(*in.buf, max(len(data), have)) // append would add a quarter at a time
		}
		*in.buf = append(*in.buf, data...)
	}
	s.changed.Broadcast()
}

// dropped discards what nobody will receive. conn.mu is held.
func (s *Stream) dropped() {
	if s.in.buf != nil {
		s.call.conn.server.requests.put(s.in.buf)
		s.in.buf, s.in.at = nil, 0
	}
	s.changed.Broadcast()
}

// receive waits for the next message. Errors are grpc-go's.
func (s *Stream) receive(m any) error {
	server := s.call.conn.server
	buf, err := s.next()
	if err != nil {
		return err
	}
	defer server.requests.put(buf)
	if err := server.cfg.Codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer((*buf)[prefixBytes:])}, m); err != nil {
		return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
	}
	return nil
}

// next waits for the next message and returns it with its prefix.
func (s *Stream) next() (*[]byte, error) {
	c := s.call.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if s.over() {
			return nil, s.lost()
		}
		n, err := s.in.first(c.server.cfg.MaxRecvBytes)
		if err != nil {
			return nil, err
		}
		if n > 0 && n <= s.in.unread() {
			buf := s.in.pop(n, &c.server.requests)
			s.widen(0)
			return buf, checkFormat((*buf)[0])
		}
		s.widen(n)
		s.changed.Wait()
	}
}

// unread is the number of unread bytes.
func (in *inbox) unread() int {
	if in.buf == nil {
		return 0
	}
	return len(*in.buf) - in.at
}

// first returns the size of the first message, with its prefix; 0 while unknown. The message may
// not have arrived yet.
func (in *inbox) first(bytesMax int) (int, error) {
	unread, n := in.unread(), 0
	if unread >= prefixBytes {
		size := binary.BigEndian.Uint32((*in.buf)[in.at+1:])
		if int64(size) > int64(bytesMax) {
			return 0, status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", size, bytesMax)
		}
		n = prefixBytes + int(size)
	}
	switch {
	case !in.ended || n > 0 && n <= unread:
		return n, nil
	case unread == 0:
		return 0, io.EOF
	default:
		return 0, status.Error(codes.Internal, io.ErrUnexpectedEOF.Error())
	}
}

// pop removes the first n bytes. Nearly always that is everything.
func (in *inbox) pop(n int, free *buffers) *[]byte {
	buf := in.buf
	if in.at == 0 && n == len(*buf) {
		in.buf = nil
		return buf
	}
	msg := free.get()
	*msg = append(*msg, (*buf)[in.at:in.at+n]...)
	if in.at += n; in.at == len(*buf) {
		free.put(buf)
		in.buf, in.at = nil, 0
	}
	return msg
}

// widen lets the client send more: so much that at most streamWindow is unread, or as much as the
// awaited message of n bytes needs (F6). It sends an update when that is a good part of the window,
// or when the message could not arrive otherwise.
func (s *Stream) widen(n int) {
	in, c := &s.in, s.call.conn
	by := max(streamWindow, n) - in.unread() - in.window
	if in.ended || by < streamWindow/4 && n <= in.unread()+in.window {
		return
	}
	in.window += by
	c.out.control(func(fr *http2.Framer) error { return fr.WriteWindowUpdate(s.call.id, uint32(by)) })
	c.kickHeld()
}

func checkFormat(compressed byte) error {
	switch compressed {
	case 0:
		return nil
	case 1:
		return status.Error(codes.Internal, "grpc: compressed flag set with identity or empty encoding")
	default:
		return status.Errorf(codes.Internal, "grpc: received unexpected payload format %d", compressed)
	}
}
