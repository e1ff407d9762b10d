package rpcfront

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"

	"github.com/flotilla-kv/flotilla/internal/workers"
)

// Config tells what grpc-go is told by its options, and cannot be asked for.
type Config struct {
	// Codec is the server's forced codec.
	Codec encoding.CodecV2
	// Interceptor is all of the server's unary interceptors; nil when there are none.
	Interceptor grpc.UnaryServerInterceptor
	// MaxStreams is how many streams may be open on one connection.
	MaxStreams uint32
	// PingMinTime is how often a client may ping while it has streams open; a client that pings more
	// often, or more than every two hours without any, is disconnected.
	PingMinTime time.Duration
	// Starts have, by path, what is tried before a method's handler.
	Starts map[string]Start
}

// Start carries a call out without a goroutine, or returns false and leaves it to the method's handler, with
// the interceptor. It and all it calls must not block. The request is not to be kept.
type Start func(call Call, request []byte) bool

// Call is a call and its context. Answer is called once, by whoever was started, on any goroutine.
type Call interface {
	context.Context
	// Header is what the client's metadata says under a name in lower case.
	Header(name string) []string
	Answer(resp any, err error)
}

// Server serves the connections of a listener.
type Server struct {
	cfg      Config
	behind   *grpc.Server
	listener net.Listener
	relays   *relayListener
	methods  map[string]*method // by path; immutable once the server runs
	workers  workers.Pool
	requests buffers
	answers  buffers

	running sync.WaitGroup // connections, and grpc-go
	started sync.WaitGroup // calls that were started and not answered
	mu      struct {
		sync.Mutex
		conns   map[*conn]struct{}
		stopped bool
	}
}

// method is a unary method.
type method struct {
	path    string
	impl    any
	handler grpc.MethodHandler
	start   Start // nil: there is only the handler
}

// New returns a Server with a grpc-go server behind it that has the options.
func New(l net.Listener, cfg Config, opts ...grpc.ServerOption) *Server {
	s := &Server{
		cfg: cfg, behind: grpc.NewServer(append(opts, behindOptions()...)...),
		listener: l, relays: newRelayListener(l.Addr()), methods: make(map[string]*method),
	}
	s.mu.conns = make(map[*conn]struct{})
	return s
}

func behindOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		// Windows for many and for large messages. They are constant then: otherwise grpc-go would measure round trips,
		// which are those to this package.
		grpc.InitialWindowSize(1 << 20), grpc.InitialConnWindowSize(4 << 20),
		grpc.WriteBufferSize(64 << 10), grpc.ReadBufferSize(4 << 10), // it reads from memory
		grpc.WaitForHandlers(true),
	}
}

// RegisterService implements grpc.ServiceRegistrar. It comes before Run.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.behind.RegisterService(desc, impl)
	for _, m := range desc.Methods {
		path := "/" + desc.ServiceName + "/" + m.MethodName
		s.methods[path] = &method{path: path, impl: impl, handler: m.Handler, start: s.cfg.Starts[path]}
	}
}

// Run serves until Stop, then returns nil, or until the listener fails.
func (s *Server) Run() error {
	s.running.Go(func() { _ = s.behind.Serve(s.relays) }) // it ends when relays is closed
	for {
		nc, err := s.listener.Accept()
		if err == nil {
			s.serve(nc)
			continue
		}
		if s.isStopped() {
			return nil
		}
		return err
	}
}

// serve begins to serve a connection.
func (s *Server) serve(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.stopped {
		nc.Close()
		return
	}
	c := newConn(s, nc)
	s.mu.conns[c] = struct{}{}
	s.running.Go(func() {
		if s.relays.offer(&c.relay) {
			c.read()
		}
		c.close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.mu.conns, c)
	})
}

func (s *Server) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.stopped
}

// Stop ends all connections and returns when every handler has (F7): nobody pulls the store from under them.
func (s *Server) Stop() {
	s.mu.Lock()
	s.mu.stopped = true
	conns := make([]*conn, 0, len(s.mu.conns))
	for c := range s.mu.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	s.listener.Close()
	s.relays.Close()
	for _, c := range conns {
		c.close()
	}
	s.behind.Stop()
	s.running.Wait()
	s.started.Wait()
	s.workers.Close() // last: those that read give them work, and who answers
	s.workers.Wait()
}
