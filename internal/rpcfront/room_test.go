package rpcfront

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatWasReadTakesNoRoom is F6 for who is always a little behind: what a stream's handler, or grpc-go, has read is
// discarded also when something unread always follows it.
func TestWhatWasReadTakesNoRoom(t *testing.T) {
	const (
		frames = 1000
		unread = frameBytesMax / 2
		room   = 16 * frameBytesMax
	)
	data := make([]byte, frameBytesMax)
	for i := range data {
		data[i] = byte(i % 251)
	}
	// Each frame has the end of a message and the beginning of the next.
	rest := append(append([]byte(nil), data[unread:]...), data[:unread]...)

	t.Run("stream", func(t *testing.T) {
		c := &conn{server: &Server{}}
		s := &Stream{call: call{conn: c}}
		s.changed.L = &c.mu
		s.take(data[:unread], unread, false)
		for range frames {
			s.take(rest, len(rest), false)
			require.True(t, bytes.Equal(data, *s.in.pop(len(data), &c.server.requests)))
			require.Equal(t, unread, s.in.unread())
			require.LessOrEqual(t, cap(*s.in.buf), room)
		}
	})
	t.Run("grpc-go", func(t *testing.T) {
		r := &relay{}
		r.init(&conn{})
		r.give(data[:unread])
		buf := make([]byte, len(data))
		for range frames {
			r.give(rest)
			n, err := r.Read(buf)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, buf[:n]))
			require.LessOrEqual(t, cap(r.pipe.buf), room)
		}
	})
}
