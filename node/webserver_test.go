package node

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asked is a web server with a request under way.
type asked struct {
	*webServer
	node   *Node
	addr   string
	client net.Conn
	served chan error
}

// ask has a new web server carry out a request, and returns once its handler runs.
func ask(t *testing.T, handler http.HandlerFunc) asked {
	t.Helper()
	a := asked{node: &Node{log: slog.New(slog.DiscardHandler)}, served: make(chan error, 1)}
	a.node.ctx, a.node.cancel = context.WithCancelCause(t.Context())
	t.Cleanup(func() { a.node.cancel(errClosed) })
	entered := make(chan struct{})
	a.webServer = a.node.newWebServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		handler(w, r)
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	a.addr = l.Addr().String()
	go func() { a.served <- a.Serve(l) }()
	a.client, err = net.Dial("tcp", a.addr)
	require.NoError(t, err)
	t.Cleanup(func() { a.client.Close() })
	_, err = a.client.Write([]byte("GET / HTTP/1.1\r\nHost: n\r\n\r\n"))
	require.NoError(t, err)
	<-entered
	return a
}

// A node that is about to stop answers the requests that have come, and takes no more of them.
func TestAWebServerAnswersBeforeItLeaves(t *testing.T) {
	proceed := make(chan struct{})
	a := ask(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-proceed:
			_, _ = w.Write([]byte("done"))
		case <-r.Context().Done():
		}
	})
	defer a.Close()
	left := make(chan struct{})
	go func() {
		a.leave(t.Context())
		close(left)
	}()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", a.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond)
	select {
	case <-left:
		t.Fatal("a request is under way")
	default:
	}
	close(proceed)
	answer, err := io.ReadAll(a.client)
	require.NoError(t, err)
	require.Contains(t, string(answer), "\r\n\r\ndone")
	<-left
}

// A watch does not end by itself: nobody waits for it longer than was said.
func TestAWebServerLeavesInTime(t *testing.T) {
	a := ask(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.leave(ctx)
	a.Close()
}

// Handlers use the store and Raft, which are closed after the servers.
func TestAWebServerWaitsForItsHandlers(t *testing.T) {
	leave := make(chan struct{})
	a := ask(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		<-leave
	})
	a.node.cancel(errClosed)
	closed := make(chan struct{})
	go func() { a.Close(); close(closed) }()
	select {
	case <-closed:
		t.Fatal("it has closed, and a handler runs")
	case <-time.After(20 * time.Millisecond): // long enough for a Close that does not wait
	}
	close(leave)
	<-closed
	require.ErrorIs(t, <-a.served, http.ErrServerClosed)
	require.False(t, a.enter(), "a request that comes late gets no further")
}
