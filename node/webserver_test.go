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

// A node that is about to stop answers the requests that have come, and takes no more of them.
func TestAWebServerAnswersBeforeItLeaves(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	n.ctx, n.cancel = context.WithCancelCause(t.Context())
	defer n.cancel(errClosed)
	entered, proceed := make(chan struct{}), make(chan struct{})
	server := n.newWebServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-proceed:
			_, _ = w.Write([]byte("done"))
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(l) }()
	client, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write([]byte("GET / HTTP/1.1\r\nHost: n\r\n\r\n"))
	require.NoError(t, err)
	<-entered
	left := make(chan struct{})
	go func() {
		server.leave(t.Context())
		close(left)
	}()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", l.Addr().String())
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
	answer, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Contains(t, string(answer), "\r\n\r\ndone")
	<-left
}

// A watch does not end by itself: nobody waits for it longer than was said.
func TestAWebServerLeavesInTime(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	n.ctx, n.cancel = context.WithCancelCause(t.Context())
	defer n.cancel(errClosed)
	entered := make(chan struct{})
	server := n.newWebServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: n\r\n\r\n"))
	require.NoError(t, err)
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	server.leave(ctx)
	server.Close()
}

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
