package node

import (
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// handshakeTimeout is how long a client may take from connecting to speaking HTTP/2.
const handshakeTimeout = 10 * time.Second

// rpcServer is a gRPC server that stops at once. gRPC's own Stop waits for clients in the middle of
// their handshake, even silent ones, for as long as handshakes may take.
type rpcServer struct {
	*grpc.Server
	listener net.Listener

	mu struct {
		sync.Mutex
		conns   map[*serverConn]struct{}
		stopped bool
	}
}

func newRPCServer(l net.Listener, opts ...grpc.ServerOption) *rpcServer {
	s := &rpcServer{
		Server:   grpc.NewServer(append(opts, grpc.ConnectionTimeout(handshakeTimeout), grpc.WaitForHandlers(true))...),
		listener: l,
	}
	s.mu.conns = make(map[*serverConn]struct{})
	return s
}

// Run serves until Stop.
func (s *rpcServer) Run() error { return s.Serve(s) }

// Stop ends all connections and returns when every handler has returned, so that the store can be
// closed.
func (s *rpcServer) Stop() {
	s.mu.Lock()
	s.mu.stopped = true
	conns := s.mu.conns
	s.mu.conns = nil
	s.mu.Unlock()
	for c := range conns {
		c.Conn.Close()
	}
	s.Server.Stop()
}

// Accept implements net.Listener.
func (s *rpcServer) Accept() (net.Conn, error) {
	conn, err := s.listener.Accept()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.stopped {
		conn.Close()
		return nil, net.ErrClosed
	}
	c := &serverConn{Conn: conn, server: s}
	s.mu.conns[c] = struct{}{}
	return c, nil
}

// Close implements net.Listener.
func (s *rpcServer) Close() error { return s.listener.Close() }

// Addr implements net.Listener.
func (s *rpcServer) Addr() net.Addr { return s.listener.Addr() }

type serverConn struct {
	net.Conn
	server *rpcServer
}

// Close implements net.Conn.
func (c *serverConn) Close() error {
	c.server.mu.Lock()
	delete(c.server.mu.conns, c)
	c.server.mu.Unlock()
	return c.Conn.Close()
}
