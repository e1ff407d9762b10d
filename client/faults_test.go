package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// Nobody answers, or somebody else does: operations say so, and why, in time, and were not
// sent.
func TestWrongEndpoints(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	authority, expired := expiredCertificate(t)
	withExpired := answering(t, func(conn net.Conn) {
		_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{expired}, NextProtos: []string{"h2"}}).Handshake()
	})
	for name, w := range map[string]struct {
		endpoint string
		tls      *tls.Config
		why      string
	}{
		"nobody":      {endpoint: testcluster.Lease(t), why: "connection refused"},
		"a peer port": {endpoint: c.Node(1).PeerAddr(), why: "Native"},
		"HTTP/1":      {endpoint: web.Listener.Addr().String(), why: "error reading server preface"},
		"garbage": {endpoint: answering(t, func(conn net.Conn) { _, _ = conn.Write([]byte("220 smtp ready\r\n")) }),
			why: "error reading server preface"},
		"silence":                {endpoint: answering(t, func(net.Conn) {}), why: "deadline"},
		"an expired certificate": {endpoint: withExpired, tls: &tls.Config{RootCAs: authority}, why: "certificate has expired"},
		"no TLS where it is":     {endpoint: withExpired, why: "preface"},
		"TLS where it is not":    {endpoint: "https://" + c.Node(1).ClientAddr(), why: "handshake failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl, err := client.New(client.Config{Endpoints: []string{w.endpoint}, TLS: w.tls})
			require.NoError(t, err)
			defer cl.Close()
			testcluster.Eventually(t, "operations to say why", func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
				for _, o := range cl.Batch(ctx, client.Put("k", nil), client.Get("k"), client.Delete("k")) {
					require.ErrorIs(t, o.Err, context.DeadlineExceeded)
					var unknown *client.UnknownOutcomeError
					require.NotErrorAs(t, o.Err, &unknown)
					if !strings.Contains(o.Err.Error(), w.why) {
						return fmt.Errorf("it says %w", o.Err)
					}
				}
				return nil
			})
		})
	}
	t.Run("one of them is right", func(t *testing.T) {
		t.Parallel()
		cl := connect(t, c, func(cfg *client.Config) {
			cfg.Endpoints = []string{testcluster.Lease(t), web.Listener.Addr().String(), c.Node(1).PeerAddr(), c.Node(1).ClientAddr()}
		})
		_, err := cl.Put(t.Context(), "k", nil)
		require.NoError(t, err)
	})
	t.Run("none", func(t *testing.T) {
		for _, endpoints := range [][]string{nil, {"127.0.0.1"}, {"ftp://127.0.0.1:1"}} {
			_, err := client.New(client.Config{Endpoints: endpoints})
			require.Error(t, err, "%v", endpoints)
		}
	})
}

// answering is the address of something that takes connections and does this with them.
func answering(t *testing.T, with func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var conns sync.Map
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(conn, nil)
			serving.Go(func() {
				with(conn)
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Range(func(conn, _ any) bool {
			conn.(net.Conn).Close()
			return true
		})
		serving.Wait()
	})
	return l.Addr().String()
}

// expiredCertificate is one of 127.0.0.1 that was good until yesterday, and who vouches for it.
func expiredCertificate(t *testing.T) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	require.NoError(t, err)
	signed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(signed)
	return pool, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// X5: what is under way when the client is closed ends, with ErrClosed or, if it was sent, with
// an unknown outcome, and what comes later is refused.
func TestClose(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1, Splits: "uniform:4"})
	cl := connect(t, c)
	ctx := t.Context()
	_, err := cl.Put(ctx, "k", nil)
	require.NoError(t, err)
	lease, err := cl.Grant(ctx, time.Minute)
	require.NoError(t, err)
	session, err := cl.NewSession(ctx, time.Minute)
	require.NoError(t, err)
	scan := func() (err error) {
		for _, err = range cl.Scan(ctx, "", client.WithPrefix()) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	watchWith := func(options ...client.Option) (err error) {
		for _, err = range cl.Watch(ctx, "", append(options, client.WithPrefix())...) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	watch := func() error { return watchWith() }
	watchPast := func() error { return watchWith(client.FromRevision(1)) } // it asks nobody for the present
	var mayBeUnknown, certain []func() error
	add := func(to *[]func() error, what ...func() error) { *to = append(*to, what...) }
	add(&mayBeUnknown,
		func() error { _, err := cl.Put(ctx, "k", nil); return err },
		func() error { _, err := cl.Delete(ctx, "", client.WithPrefix()); return err },
		func() error { _, err := cl.Txn(ctx, nil, []client.Op{client.Put("k", nil)}, nil); return err },
	)
	add(&certain, scan, watch, watchPast,
		func() error { _, err := cl.Get(ctx, "k"); return err },
		func() error { _, err := cl.Get(ctx, "", client.WithPrefix()); return err },
		func() error { _, err := cl.Get(ctx, "k", client.AtTime(time.Now())); return err },
		func() error { _, err := cl.Renew(ctx, lease); return err },
		func() error {
			for _, err := range cl.WatchShards(ctx, &client.Position{}, "", client.WithPrefix()) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	)
	var wg sync.WaitGroup
	until := func(f func() error, check func(error)) {
		for range 8 {
			wg.Go(func() {
				for {
					if err := f(); err != nil {
						check(err)
						return
					}
				}
			})
		}
	}
	for i, f := range mayBeUnknown {
		until(f, func(err error) {
			var unknown *client.UnknownOutcomeError
			if !errors.Is(err, client.ErrClosed) && !errors.As(err, &unknown) {
				t.Errorf("write %d ended with %v", i, err)
			}
		})
	}
	for i, f := range certain {
		until(f, func(err error) {
			if !errors.Is(err, client.ErrClosed) {
				t.Errorf("read %d ended with %v", i, err)
			}
		})
	}
	for range 100 { // some of them are surely under way
		_, err := cl.Get(ctx, "k")
		require.NoError(t, err)
	}
	cl.Close()
	wg.Wait()
	<-session.Done()
	_, err = cl.Grant(ctx, time.Minute)
	require.ErrorIs(t, err, client.ErrClosed)
	require.ErrorIs(t, cl.Revoke(ctx, lease), client.ErrClosed)
	_, err = cl.NewSession(ctx, time.Minute)
	require.ErrorIs(t, err, client.ErrClosed)
	for i, f := range append(mayBeUnknown, certain...) {
		require.ErrorIs(t, f(), client.ErrClosed, "%d", i)
	}
	cl.Close()
}

// What a node refuses was not done, also where it refuses in etcd's words.
func TestRefusedGrants(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	cl := connect(t, c)
	c.Node(1).Disk.SetFree(1 << 20)
	testcluster.Eventually(t, "the node to see that its disk is full", func(ctx context.Context) error {
		_, err := cl.Grant(ctx, time.Minute)
		if errors.Is(err, shard.ErrNoSpace) {
			var unknown *client.UnknownOutcomeError
			require.NotErrorAs(t, err, &unknown)
			return nil
		}
		return fmt.Errorf("it said %v", err)
	})
	_, err := cl.Put(t.Context(), "k", nil)
	require.ErrorIs(t, err, shard.ErrNoSpace)
}

// When the node that was asked for a lease cannot be reached any more, another one is asked.
func TestLeasesThroughAnotherNode(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{})
	for name, ask := range map[string]func(*client.Client, int64) error{
		"grant":  func(cl *client.Client, _ int64) error { _, err := cl.Grant(t.Context(), time.Minute); return err },
		"revoke": func(cl *client.Client, lease int64) error { return cl.Revoke(t.Context(), lease) },
	} {
		t.Run(name, func(t *testing.T) {
			var gone atomic.Bool          // the first node
			var conns sync.Map            // to it
			missed := make(chan struct{}) // closed when it was dialled in vain
			miss := sync.OnceFunc(func() { close(missed) })
			cl := connect(t, c, func(cfg *client.Config) {
				cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
					first := addr == cfg.Endpoints[0]
					if gone.Load() && first {
						miss()
						return nil, errors.New("no route to it")
					}
					if gone.Load() { // the map comes from nobody else before
						select {
						case <-missed:
						case <-ctx.Done():
							return nil, ctx.Err()
						}
					}
					conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
					if first && err == nil {
						conns.Store(conn, nil)
					}
					return conn, err
				}
			})
			lease, err := cl.Grant(t.Context(), time.Minute)
			require.NoError(t, err)
			gone.Store(true)
			conns.Range(func(conn, _ any) bool {
				_ = conn.(net.Conn).Close()
				return true
			})
			require.NoError(t, ask(cl, lease))
		})
	}
}

// A put that is under way when its caller leaves may be applied; one that was never sent is
// not. Which of both it was is never guessed.
func TestCancelledInFlight(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	cl := connect(t, c)
	first, err := cl.Put(t.Context(), "k", []byte("v1"))
	require.NoError(t, err)
	for _, n := range c.Nodes() { // no write can be committed
		for _, o := range c.Nodes() {
			if n != o {
				c.Network().Cut(n.Name, o.Name)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	outcome := make(chan error, 1)
	go func() {
		_, err := cl.Put(ctx, "k", []byte("v2"))
		outcome <- err
	}()
	started := make(chan error, 1)
	cl.Go(ctx, client.Put("k", []byte("v3")), func(_ client.Result, err error) { started <- err })
	time.AfterFunc(50*time.Millisecond, cancel)
	for _, err := range []error{<-outcome, <-started} {
		// Leaders may have noticed before the put came: then it was refused, again and again.
		require.ErrorIs(t, err, context.Canceled)
		var unknown *client.UnknownOutcomeError
		if errors.As(err, &unknown) {
			require.Equal(t, "put", unknown.Op)
			require.Equal(t, "k", unknown.Key)
		}
	}
	c.Network().Heal()
	testcluster.Eventually(t, "the cluster to serve again", func(ctx context.Context) error {
		got, err := cl.Get(ctx, "k")
		if err != nil {
			return err
		}
		require.GreaterOrEqual(t, got.KV().ModRevision, first.Revision)
		return nil
	})
}

// A read that finds no quorum ends, after its time, with an error that callers know, and with etcd's
// where the client stands in for etcd's.
func TestReadsThatTimeOut(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	cl := connect(t, c)
	_, err := cl.Put(t.Context(), "k", []byte("v"))
	require.NoError(t, err)
	for _, n := range c.Nodes() {
		for _, o := range c.Nodes() {
			if n != o {
				c.Network().Cut(n.Name, o.Name)
			}
		}
	}
	told := make(chan error, 1)
	go func() {
		_, err := cl.KVClient().Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
		told <- err
	}()
	_, err = cl.Get(t.Context(), "k")
	require.ErrorIs(t, err, shard.ErrUnavailable)
	require.NotErrorIs(t, err, shard.ErrUnknownOutcome, "nothing was to be applied")
	require.Equal(t, rpctypes.ErrGRPCTimeout, <-told)
}

// A batch over fifty shards of which some have lost their quorum: theirs fail, one by one, and
// all others succeed. What has certainly failed was not applied, and nothing was twice.
func TestBatchWithoutQuorum(t *testing.T) {
	const shards = 50
	c := testcluster.Start(t, testcluster.Options{Nodes: 5, Splits: fmt.Sprintf("uniform:%d", shards), Tick: steadyTick})
	cl := connect(t, c)
	key := func(i int) string {
		middle := (i*2 + 1) * 0x10000 / (2 * shards)
		return string([]byte{byte(middle >> 8), byte(middle)})
	}
	ops := make([]client.Op, shards)
	for i := range ops {
		ops[i] = client.Put(key(i), nil)
	}
	for i, o := range cl.Batch(t.Context(), ops...) {
		require.NoError(t, o.Err, "operation %d", i)
	}
	m := c.Node(1).Inside().Map()
	require.Len(t, m.Shards(), shards)
	var with [shards]bool
	for i := range with {
		alive := 0
		for _, r := range m.Lookup([]byte(key(i))).Replicas {
			if r.Node != c.Node(4).Inside().ID() && r.Node != c.Node(5).Inside().ID() {
				alive++
			}
		}
		with[i] = alive >= 2
	}
	require.Contains(t, with, true)
	require.Contains(t, with, false)
	c.Node(4).Stop()
	c.Node(5).Stop()
	for i := range with { // they elect leaders first
		if with[i] {
			testcluster.Eventually(t, "a leader", func(ctx context.Context) error {
				_, err := cl.Put(ctx, key(i)+"led", nil)
				return err
			})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	outcomes := cl.Batch(ctx, ops...)
	c.StartSome(t, c.Node(4), c.Node(5))
	for i, o := range outcomes {
		var got client.Result
		testcluster.Eventually(t, "all to be served again", func(ctx context.Context) (err error) {
			got, err = cl.Get(ctx, key(i))
			return err
		})
		var unknown *client.UnknownOutcomeError
		switch {
		case with[i]:
			require.NoError(t, o.Err, "operation %d, of a shard with a quorum", i)
			require.Equal(t, int64(2), got.KV().Version)
			require.Equal(t, o.Result.Revision, got.KV().ModRevision)
		case errors.As(o.Err, &unknown): // it came to a leader that had not noticed
			require.LessOrEqual(t, got.KV().Version, int64(2))
			require.Equal(t, key(i), unknown.Key)
		default:
			require.ErrorIs(t, o.Err, context.DeadlineExceeded, "operation %d, of a shard without one", i)
			require.Equal(t, int64(1), got.KV().Version, "it was not applied")
		}
	}
}

// Shards split and leaders move under a batch: no operation fails, and none is applied
// twice.
func TestSplitsDuringBatches(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	cl := connect(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type put struct {
		key string
		rev int64
	}
	written := make(chan []put, 1)
	go func() {
		var all []put
		defer func() { written <- all }()
		for round := 0; ctx.Err() == nil; round++ {
			ops := make([]client.Op, 64)
			for i := range ops {
				ops[i] = client.Put(spread(i%8, fmt.Sprintf("%d/%d", round, i)), nil)
			}
			for i, o := range cl.Batch(t.Context(), ops...) {
				if o.Err != nil {
					t.Errorf("round %d, operation %d: %v", round, i, o.Err)
					return
				}
				all = append(all, put{spread(i%8, fmt.Sprintf("%d/%d", round, i)), o.Result.Revision})
			}
		}
	}()
	for _, i := range []int{4, 2, 6} {
		key := spread(i, "")
		testcluster.Eventually(t, "a split to begin", func(ctx context.Context) error {
			_, err := c.Node(1).Inside().Split(ctx, []byte(key), "a test")
			return err
		})
		testcluster.Until(t, "the split to end", func() bool {
			m := c.Node(1).Inside().Map()
			return string(m.Lookup([]byte(key)).Span.Start) == key && len(m.Operators()) == 0
		})
	}
	cancel()
	all := <-written
	require.NotEmpty(t, all)
	for _, p := range all {
		got, err := cl.Get(t.Context(), p.key)
		require.NoError(t, err)
		require.Equal(t, p.rev, got.KV().ModRevision)
		require.Equal(t, int64(1), got.KV().Version, "put once")
	}
}
