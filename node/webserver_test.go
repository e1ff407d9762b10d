package node

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Handlers use the store and Raft, which are closed after the servers.
func TestAWebServerWaitsForItsHandlers(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	n.ctx, n.cancel = context.WithCancelCause(t.Context())
	entered, leave := make(chan struct{}), make(chan struct{})
	server := n.newWebServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		<-leave
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: n\r\n\r\n"))
	require.NoError(t, err)
	<-entered
	n.cancel(errClosed)
	closed := make(chan struct{})
	go func() { server.Close(); close(closed) }()
	select {
	case <-closed:
		t.Fatal("it has closed, and a handler runs")
	case <-time.After(20 * time.Millisecond): // long enough for a Close that does not wait
	}
	close(leave)
	<-closed
	require.ErrorIs(t, <-served, http.ErrServerClosed)
	require.False(t, server.enter(), "a request that comes late gets no further")
}
