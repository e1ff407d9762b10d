package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// Nobody answers, or somebody else does: operations say so, in time, and were not sent.
func TestWrongEndpoints(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	defer silent.Close()
	for name, endpoint := range map[string]string{
		"nobody": testcluster.Lease(t), "a peer port": c.Node(1).PeerAddr(), "silence": silent.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl, err := client.New(client.Config{Endpoints: []string{endpoint}})
			require.NoError(t, err)
			defer cl.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			for _, o := range cl.Batch(ctx, client.Put("k", nil), client.Get("k"), client.Delete("k")) {
				require.ErrorIs(t, o.Err, context.DeadlineExceeded)
				var unknown *client.UnknownOutcomeError
				require.NotErrorAs(t, o.Err, &unknown)
			}
		})
	}
	t.Run("one of them is right", func(t *testing.T) {
		t.Parallel()
		cl := connect(t, c, func(cfg *client.Config) {
			cfg.Endpoints = []string{testcluster.Lease(t), c.Node(1).PeerAddr(), c.Node(1).ClientAddr()}
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

// X5: what is under way when the client is closed ends, and what comes later is refused.
func TestClose(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Nodes: 1})
	cl := connect(t, c)
	_, err := cl.Put(t.Context(), "k", nil)
	require.NoError(t, err)
	watched := make(chan error, 1)
	go func() {
		for _, err := range cl.Watch(t.Context(), "k") {
			if err != nil {
				watched <- err
			}
		}
	}()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for {
				if _, err := cl.Put(t.Context(), "k", nil); err != nil {
					var unknown *client.UnknownOutcomeError
					if !errors.Is(err, client.ErrClosed) && !errors.As(err, &unknown) && !errors.Is(err, shard.ErrStopped) {
						t.Errorf("a put ended with %v", err)
					}
					return
				}
			}
		})
	}
	for range 100 { // some of them are surely under way
		_, err := cl.Get(t.Context(), "k")
		require.NoError(t, err)
	}
	cl.Close()
	wg.Wait()
	require.ErrorIs(t, <-watched, client.ErrClosed)
	_, err = cl.Get(t.Context(), "k")
	require.ErrorIs(t, err, client.ErrClosed)
	cl.Close()
}

// A put that is under way when its caller leaves may be applied; one that was never sent is
// not. Which of both it was is never guessed.
func TestCancelledInFlight(t *testing.T) {
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

// A batch over shards of which some have lost their quorum: theirs fail, one by one, and
// all others succeed.
func TestBatchWithoutQuorum(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Nodes: 5, Splits: "uniform:8"})
	cl := connect(t, c)
	ops := make([]client.Op, 64)
	for i := range ops {
		ops[i] = client.Put(spread(i%8, fmt.Sprint(i)), nil)
	}
	for i, o := range cl.Batch(t.Context(), ops...) {
		require.NoError(t, o.Err, "operation %d", i)
	}
	m := c.Node(1).Inside().Map()
	quorum := func(i int) bool {
		alive := 0
		for _, r := range m.Lookup([]byte(spread(i, ""))).Replicas {
			if r.Node != c.Node(4).Inside().ID() && r.Node != c.Node(5).Inside().ID() {
				alive++
			}
		}
		return alive >= 2
	}
	with := make(map[int]bool)
	for i := range 8 {
		with[i] = quorum(i)
	}
	require.Contains(t, with, 0)
	c.Node(4).Stop()
	c.Node(5).Stop()
	// The rest elects leaders first.
	for i := range 8 {
		if with[i] {
			testcluster.Eventually(t, "a leader", func(ctx context.Context) error {
				_, err := cl.Put(ctx, spread(i, "again"), nil)
				return err
			})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for i, o := range cl.Batch(ctx, ops...) {
		if with[i%8] {
			require.NoError(t, o.Err, "operation %d, of a shard with a quorum", i)
			continue
		}
		require.Error(t, o.Err, "operation %d, of a shard without one", i)
		require.ErrorIs(t, o.Err, context.DeadlineExceeded)
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
