package client_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// lines are a client's connections, of which some can be made to bring nothing any more.
type lines struct {
	mu    sync.Mutex
	muted map[string]chan struct{} // by address; closed when it brings something again
}

func (l *lines) mute(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.muted[addr] = make(chan struct{})
}

func (l *lines) unmute(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.muted[addr])
	delete(l.muted, addr)
}

func (l *lines) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &line{Conn: conn, of: l, addr: addr, closed: make(chan struct{})}, nil
}

type line struct {
	net.Conn
	of     *lines
	addr   string
	once   sync.Once
	closed chan struct{}
}

func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.of.mu.Lock()
	muted := l.of.muted[l.addr]
	l.of.mu.Unlock()
	if muted != nil {
		select {
		case <-muted:
		case <-l.closed:
		}
	}
	return n, err
}

func (l *line) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

// A leader that takes requests and answers none: reads that it was sent are asked of the other
// replicas once it has been silent for a while. A write is not; it ends as unknown, and was applied once.
func TestReadsLeaveASilentNode(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	l := &lines{muted: make(map[string]chan struct{})}
	cl := connect(t, c, func(cfg *client.Config) { cfg.Dial = l.dial })
	var leader string
	testcluster.Until(t, "the leader", func() bool {
		_, err := cl.Put(t.Context(), "k", []byte("v"))
		require.NoError(t, err)
		n := c.Node(1).Inside()
		r, _ := n.Host().Replica(n.Map().Lookup([]byte("k")).ID)
		for _, led := range c.Nodes() {
			if led.Inside().ID() == r.LeaderNode() {
				leader = led.ClientAddr()
			}
		}
		return leader != ""
	})
	_, err := cl.Put(t.Context(), "k", []byte("before")) // the client knows the leader now
	require.NoError(t, err)
	was, err := cl.Get(t.Context(), "k")
	require.NoError(t, err)

	l.mute(leader)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	written := make(chan error, 1)
	go func() {
		_, err := cl.Put(ctx, "k", []byte("after"))
		written <- err
	}()
	read := make(chan error, 3)
	for _, options := range [][]client.Option{nil, {client.Serializable()}, {client.WithPrefix()}} {
		go func() {
			_, err := cl.Get(t.Context(), "k", options...)
			read <- err
		}()
	}
	for range cap(read) {
		require.NoError(t, <-read)
	}
	select {
	case err := <-written:
		t.Fatalf("the write has ended before the reads, which waited for the node then: %v", err)
	default:
	}
	got, err := cl.Get(t.Context(), "k")
	require.NoError(t, err)
	leave()
	require.ErrorIs(t, <-written, shard.ErrUnknownOutcome)
	l.unmute(leader)
	testcluster.Eventually(t, "the write to be applied", func(ctx context.Context) error {
		got, err = cl.Get(ctx, "k")
		if err == nil && string(got.KV().Value) != "after" {
			err = errors.New("it is not yet")
		}
		return err
	})
	require.Equal(t, was.KV().Version+1, got.KV().Version, "and once")
}
