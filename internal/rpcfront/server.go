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

// Config repeats those of grpc-go's options that cannot be read back from it.
type Config struct {
	// Codec is the server's forced codec.
	Codec encoding.CodecV2
	// Appender returns how a unary call's response marshals itself, to the same bytes as with
	// Codec, or nil for a response that is left to that; nil when all are.
	Appender func(resp any) Appender
	// Interceptor is all of the server's unary interceptors; nil when there are none.
	Interceptor grpc.UnaryServerInterceptor
	// Starters has, by path, the functions that start calls of methods that need no goroutine while
	// they wait for their responses. Calls that grpc-go serves use the service's own methods.
	Starters map[string]Starter
	// StreamInterceptor is all of the server's stream interceptors; nil when there are none.
	StreamInterceptor grpc.StreamServerInterceptor
	// MaxRecvBytes is the maximum size of a received message.
	MaxRecvBytes int
	// MaxStreams is how many streams may be open on one connection.
	MaxStreams uint32
	// PingMinTime is how often a client may ping while it has streams open; a client that pings more
	// often, or more than every two hours without any, is disconnected.
	PingMinTime time.Duration
	// PongDelay is how long the response to a ping waits for others, or until much is sent. gRPC
	// clients measure the bandwidth all the time, by a ping with each message that arrives after
	// the last one was answered. Answered at once, a stream of small messages takes both sides
	// three writes per message instead of one. A ping before which nothing was sent is answered at
	// once, and with 0 all are.
	PongDelay time.Duration
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
	moments  moments
	started  sync.WaitGroup // calls that were, and have no answer

	running sync.WaitGroup // connections, and grpc-go
	mu      struct {
		sync.Mutex
		conns   map[*conn]struct{}
		leaving bool // new connections are closed
		stopped bool
	}
}

// method is a method that is served here.
type method struct {
	path    string
	impl    any
	unary   grpc.MethodHandler // nil: the method is a stream
	starter Starter            // nil: there is only unary
	stream  *grpc.StreamDesc
}

// Starter starts a call, or returns false and leaves it to the method's handler, with the
// interceptor. It runs on the goroutine that reads the connection, and must neither block nor keep
// the request. Answer must be called once, on any goroutine, possibly before Starter returns. The
// result, unless nil, is abandoned when nobody waits for the response any more.
type Starter func(call Call, request []byte) (Started, bool)

// Call is a call that is answered asynchronously, and its context.
type Call interface {
	context.Context
	// Header returns the client's metadata for a lower-case name.
	Header(name string) []string
	// Answer ends the call, with an error or without. It does not block.
	Answer(resp any, err error)
	// AnswerWithin is Answer for a response that may wait for others to the same client: until the
	// next tick, a multiple of distance on the wall clock, or one that others of the connection
	// wait for, or until something else is sent. With 0 it is Answer.
	AnswerWithin(distance time.Duration, resp any, err error)
}

// Started is the work that a call has started.
type Started = interface {
	// Abandon makes the call be answered soon, with whatever is known then. It may have been
	// answered already.
	Abandon(cause error)
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
		// Windows for many and for large messages. They are constant then; otherwise grpc-go would
		// measure round trips, which would be those to this package.
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(4 << 20),
		grpc.WriteBufferSize(64 << 10), grpc.ReadBufferSize(4 << 10), // it reads from memory
		grpc.WaitForHandlers(true),
	}
}

// RegisterService implements grpc.ServiceRegistrar. Call it before Run.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.behind.RegisterService(desc, impl)
	for _, m := range desc.Methods {
		path := "/" + desc.ServiceName + "/" + m.MethodName
		s.methods[path] = &method{path: path, impl: impl, unary: m.Handler, starter: s.cfg.Starters[path]}
	}
	for i, m := range desc.Streams {
		if m.ServerStreams && m.ClientStreams { // others take a single request or give a single answer: grpc-go counts
			path := "/" + desc.ServiceName + "/" + m.StreamName
			s.methods[path] = &method{path: path, impl: impl, stream: &desc.Streams[i]}
		}
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

// serve starts to serve a connection.
func (s *Server) serve(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.leaving || s.mu.stopped {
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

// leaveInterval is the time between looks at what is under way.
const leaveInterval = 10 * time.Millisecond

// Leave tells clients to make further calls elsewhere. It returns when the calls that came before have been answered, or
// when ctx ends. Streams that are answered here continue, since watches never end by themselves. Stop must follow.
func (s *Server) Leave(ctx context.Context) {
	for _, c := range s.unbegun() {
		c.close() // grpc-go tells no client anything until it has begun with all
	}
	s.running.Go(s.behind.GracefulStop) // at Stop it returns at the latest
	for s.answering() {
		select {
		case <-time.After(leaveInterval):
		case <-ctx.Done():
			return
		}
	}
}

// unbegun returns the connections that have not begun, of which there will be no more.
func (s *Server) unbegun() (conns []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.leaving = true
	for c := range s.mu.conns {
		if !c.hasBegun() {
			conns = append(conns, c)
		}
	}
	return conns
}

// answering reports whether a client does not know yet that the server leaves, or waits for an answer.
func (s *Server) answering() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.mu.conns {
		if c.answering() {
			return true
		}
	}
	return false
}

// Stop ends all connections and returns when every handler has returned (F7), so that the store can
// be closed.
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
	s.moments.stop()
	s.workers.Close() // last: those that read give them work, and who answers
	s.workers.Wait()
}
