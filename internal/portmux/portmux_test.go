package portmux

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	request = "GET /health HTTP/1.1\r\n\r\n"
)

// raftMagic begins the connections of a protocol of our own.
const raftMagic = "\xAE\x7D"

func raft() Protocol { return Protocol{Name: "raft", Prefixes: []string{raftMagic}} }

// pipes is a listener whose connections live in memory, so that the time of a
// synctest bubble rules their deadlines.
type pipes struct {
	conns  chan net.Conn
	errs   chan error
	once   sync.Once
	closed chan struct{}
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// port is a Mux that serves over root: HTTP/2, Raft and HTTP/1, in this order.
type port struct {
	*Mux
	served chan error
}

func serve(t *testing.T, root net.Listener, cfg Config) *port {
	t.Helper()
	m, err := New(root, cfg, HTTP2(), raft(), HTTP1())
	require.NoError(t, err)
	p := &port{Mux: m, served: make(chan error, 1)}
	go func() { p.served <- m.Serve() }()
	return p
}

func (p *port) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, p.Close())
	require.NoError(t, <-p.served)
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	require.NoError(t, err)
	return c
}

func requireClosed(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestEveryProtocolReachesItsServer(t *testing.T) {
	root, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := serve(t, root, Config{})
	defer p.stop(t)
	for i, sent := range []string{preface, raftMagic + "hello", request} {
		client, err := net.Dial("tcp", root.Addr().String())
		require.NoError(t, err)
		_, err = client.Write([]byte(sent))
		require.NoError(t, err)
		require.NoError(t, client.(*net.TCPConn).CloseWrite())
		server := accept(t, p.Listener(i))
		got, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, sent, string(got))

		// What servers look for on a TCP connection is still there.
		require.Implements(t, (*io.ReaderFrom)(nil), server)
		require.NoError(t, server.(interface{ SetKeepAlive(bool) error }).SetKeepAlive(true))
		require.IsType(t, (*net.TCPConn)(nil), server.(interface{ NetConn() net.Conn }).NetConn())
		require.NoError(t, server.Close())
		require.NoError(t, client.Close())
	}
}

func TestWriteToBeginsWithTheFirstByte(t *testing.T) {
	root, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := serve(t, root, Config{})
	defer p.stop(t)
	client, err := net.Dial("tcp", root.Addr().String())
	require.NoError(t, err)
	_, err = client.Write([]byte(request))
	require.NoError(t, err)
	require.NoError(t, client.(*net.TCPConn).CloseWrite())
	server := accept(t, p.Listener(2))

	first := make([]byte, 2)
	_, err = io.ReadFull(server, first)
	require.NoError(t, err)
	var rest bytes.Buffer
	n, err := server.(io.WriterTo).WriteTo(&rest)
	require.NoError(t, err)
	require.EqualValues(t, len(request)-2, n)
	require.Equal(t, request, string(first)+rest.String())
	require.NoError(t, server.Close())
	require.NoError(t, client.Close())
}

func TestPrefaceByteByByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{})
		client := root.dial()
		go func() {
			for i := range preface {
				<-time.After(100 * time.Millisecond) // the bubble's time
				_, _ = client.Write([]byte(preface[i : i+1]))
			}
		}()
		server := accept(t, p.Listener(0))
		got := make([]byte, len(preface))
		_, err := io.ReadFull(server, got)
		require.NoError(t, err)
		require.Equal(t, preface, string(got))

		// The deadline of deciding is gone.
		<-time.After(time.Hour)
		go func() { _, _ = client.Write([]byte("x")) }()
		_, err = server.Read(got)
		require.NoError(t, err)
		p.stop(t)
	})
}

func TestHalfOpenIsClosedAtTheDeadline(t *testing.T) {
	for _, sent := range []string{"", "P", "PRI * HTTP/"} {
		synctest.Test(t, func(t *testing.T) {
			root := newPipes()
			p := serve(t, root, Config{})
			begin := time.Now()
			client := root.dial()
			if sent != "" {
				_, err := client.Write([]byte(sent))
				require.NoError(t, err)
			}
			requireClosed(t, client)
			require.Equal(t, 10*time.Second, time.Since(begin))
			p.stop(t)
		})
	}
}

func TestGarbageIsClosedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{})
		begin := time.Now()
		client := root.dial()
		_, err := client.Write([]byte("\x16\x03\x01"))
		require.NoError(t, err)
		requireClosed(t, client)
		require.Zero(t, time.Since(begin))
		p.stop(t)
	})
}

func TestSilentClientsDoNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{})
		begin := time.Now()
		for range 100 {
			root.dial()
		}
		client := root.dial()
		go func() { _, _ = client.Write([]byte(request)) }()
		_ = accept(t, p.Listener(2)).Close()
		require.Zero(t, time.Since(begin))
		p.stop(t)
	})
}

func TestTheOldestSilentClientGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{UndecidedMax: 2})
		begin := time.Now()
		first, second, third := root.dial(), root.dial(), root.dial()
		requireClosed(t, first)
		require.Zero(t, time.Since(begin))
		// The other two may still speak.
		for _, client := range []net.Conn{second, third} {
			go func() { _, _ = client.Write([]byte(request)) }()
			_ = accept(t, p.Listener(2)).Close()
		}
		p.stop(t)
	})
}

func TestServerThatDoesNotAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{})
		begin := time.Now()
		stuck := root.dial()
		_, err := stuck.Write([]byte(preface[:12]))
		require.NoError(t, err)
		// Another protocol's server is not disturbed.
		client := root.dial()
		go func() { _, _ = client.Write([]byte(request)) }()
		_ = accept(t, p.Listener(2)).Close()
		require.Zero(t, time.Since(begin))

		requireClosed(t, stuck)
		require.Equal(t, 10*time.Second, time.Since(begin))
		p.stop(t)
	})
}

func TestClosingOneProtocolLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{})
		require.NoError(t, p.Listener(0).Close())
		_, err := p.Listener(0).Accept()
		require.ErrorIs(t, err, net.ErrClosed)

		refused := root.dial()
		_, err = refused.Write([]byte(preface[:12]))
		require.NoError(t, err)
		requireClosed(t, refused)

		client := root.dial()
		go func() { _, _ = client.Write([]byte(request)) }()
		_ = accept(t, p.Listener(2)).Close()
		p.stop(t)
	})
}

func TestCloseLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{})
		silent := root.dial()
		decided := root.dial()
		_, err := decided.Write([]byte(preface[:12]))
		require.NoError(t, err)
		accepting := make(chan error, 1)
		go func() {
			_, err := p.Listener(2).Accept()
			accepting <- err
		}()
		synctest.Wait()

		p.stop(t)
		requireClosed(t, silent)
		requireClosed(t, decided)
		require.ErrorIs(t, <-accepting, net.ErrClosed)
		require.NoError(t, p.Close(), "a second Close finds nothing to do")
	})
}

type temporaryError struct{ error }

func (temporaryError) Temporary() bool { return true }

func TestAcceptSurvivesTemporaryErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{})
		for range 20 {
			root.errs <- temporaryError{errors.New("too many open files")}
		}
		client := root.dial()
		go func() { _, _ = client.Write([]byte(request)) }()
		_ = accept(t, p.Listener(2)).Close()
		p.stop(t)
	})
}

func TestAcceptThatFailsForGoodEndsServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newPipes()
		p := serve(t, root, Config{})
		gone := errors.New("interface is gone")
		root.errs <- gone
		require.ErrorIs(t, <-p.served, gone)
		_, err := p.Listener(0).Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		require.NoError(t, p.Close())
	})
}
