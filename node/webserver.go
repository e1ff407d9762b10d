package node

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/flotilla-kv/flotilla/router/etcdapi"
)

// webServer is an HTTP server whose handlers have all returned when Close returns, so that what they use can be closed.
// Go's own server does not wait for them, or waits as long as clients like (Shutdown).
type webServer struct {
	*http.Server

	mu struct {
		sync.Mutex
		closed bool
	}
	handlers sync.WaitGroup // added to with mu held, while open
}

// newWebServer returns a server whose requests end with the node.
func (n *Node) newWebServer(handler http.Handler) *webServer {
	s := &webServer{}
	s.Server = etcdapi.NewHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			http.Error(w, "the node is stopping", http.StatusServiceUnavailable)
			return
		}
		defer s.handlers.Done()
		handler.ServeHTTP(w, r)
	}), n.log)
	s.BaseContext = func(net.Listener) context.Context { return n.ctx }
	return s
}

func (s *webServer) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.handlers.Add(1)
	return true
}

// leave takes no more requests, and returns when those that have come are answered, or when ctx ends. Close must follow.
func (s *webServer) leave(ctx context.Context) {
	_ = s.Shutdown(ctx) // Close ends what is left
}

// Close closes all connections, which also ends what handlers read and write, and waits for the handlers.
func (s *webServer) Close() {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.Server.Close()
	s.handlers.Wait()
}
