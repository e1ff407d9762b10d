package certfiles

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
)

// Listen returns a listener of TLS connections. The handshake is done by a connection's first Read, so Accept never
// waits for a client, and whoever reads bounds the time. rejected is told of handshakes that failed for another reason
// than that the client went away.
func Listen(l net.Listener, cfg *tls.Config, rejected func(remote net.Addr, err error)) net.Listener {
	return &listener{l, cfg, rejected}
}

type listener struct {
	net.Listener
	cfg      *tls.Config
	rejected func(remote net.Addr, err error)
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: tls.Server(raw, l.cfg), rejected: l.rejected}, nil
}

// conn is a connection of a TLS listener. Like any, it has one reader at a time.
type conn struct {
	*tls.Conn
	began    bool
	rejected func(remote net.Addr, err error)
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if !c.began {
		c.began = true
		if err := c.Handshake(); err != nil {
			c.refuse(err)
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

// refuse tells an HTTP client in its own words what is wrong, and whoever listens about all others.
func (c *conn) refuse(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		return // a look at whether the port is open
	}
	var header tls.RecordHeaderError
	if errors.As(err, &header) && header.Conn != nil && looksLikeHTTP(header.RecordHeader[:]) {
		_, _ = io.WriteString(header.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis port speaks TLS: use https.\n") // nobody else could be told
	}
	c.rejected(c.RemoteAddr(), err)
}

// looksLikeHTTP reports whether the first five bytes begin a request without TLS.
func looksLikeHTTP(head []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"} {
		if bytes.Equal(head, []byte(method)) {
			return true
		}
	}
	return false
}
