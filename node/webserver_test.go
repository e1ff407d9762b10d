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
	entered, returned := make(chan struct{}), false
	server := n.newWebServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		time.Sleep(20 * time.Millisecond) // long enough for a Close that does not wait
		returned = true
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
	server.Close()
	require.True(t, returned)
	require.ErrorIs(t, <-served, http.ErrServerClosed)
	require.False(t, server.enter(), "a request that comes late gets no further")
}
