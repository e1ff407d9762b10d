package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/shard"
)

// roads are a client's ways to addresses, of which some can be closed.
type roads struct {
	mu     sync.Mutex
	goesTo func(addr string) string // where a connection to an address ends; empty: nowhere
	conns  map[net.Conn]string      // to which address, as the client calls it
}

func (r *roads) dial(ctx context.Context, addr string) (net.Conn, error) {
	r.mu.Lock()
	to := r.goesTo(addr)
	r.mu.Unlock()
	if to == "" {
		return nil, errors.New("no route to it")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[conn] = addr
	return conn, nil
}

// change changes the ways, and breaks connections that there would be no way for now.
func (r *roads) change(goesTo func(addr string) string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.goesTo = goesTo
	for conn, addr := range r.conns {
		if goesTo(addr) == "" {
			_ = conn.Close()
			delete(r.conns, conn)
		}
	}
}

// open is where every address is reached, and without is where these are not.
func open(addr string) string { return addr }

func without(addrs ...string) func(string) string {
	return func(addr string) string {
		for _, a := range addrs {
			if a == addr {
				return ""
			}
		}
		return addr
	}
}

// traveller is a client with such roads, and its metrics.
type traveller struct {
	*client.Client
	roads   *roads
	metrics *prometheus.Registry
}

func travel(t *testing.T, c *testcluster.Cluster, goesTo func(string) string, endpoints ...string) *traveller {
	t.Helper()
	out := &traveller{roads: &roads{goesTo: goesTo, conns: make(map[net.Conn]string)}, metrics: prometheus.NewRegistry()}
	out.Client = connect(t, c, func(cfg *client.Config) {
		cfg.Dial, cfg.Registerer = out.roads.dial, out.metrics
		if len(endpoints) > 0 {
			cfg.Endpoints = endpoints
		}
	})
	return out
}

// relayed is how many requests the client sent through another node.
func (c *traveller) relayed(t *testing.T) float64 {
	t.Helper()
	families, err := c.metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "flotilla_client_relayed_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// leaderOf is the node that leads the shard of the key.
func leaderOf(t *testing.T, c *testcluster.Cluster, key string) *testcluster.Node {
	t.Helper()
	var leader *testcluster.Node
	testcluster.Until(t, "a leader", func() bool {
		n := c.Node(1).Inside()
		r, ok := n.Host().Replica(n.Map().Lookup([]byte(key)).ID)
		for _, led := range c.Nodes() {
			if ok && led.Inside().ID() == r.LeaderNode() {
				leader = led
			}
		}
		return leader != nil
	})
	return leader
}

// noticed returns when the client has noticed that a connection is broken: the outcome of a write that was sent into it is
// not known.
func noticed(t *testing.T, cl *client.Client) {
	t.Helper()
	testcluster.Eventually(t, "the client to notice what is broken", func(ctx context.Context) error {
		_, err := cl.Put(ctx, "k", nil)
		return err
	})
}

// A client that reaches two nodes and not the one that leads does everything through them, and directly once
// it can.
func TestALeaderOutOfReach(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	leader := leaderOf(t, c, "k")
	for name, setUp := range map[string]func(*testing.T) *traveller{
		"from the start": func(t *testing.T) *traveller { return travel(t, c, without(leader.ClientAddr())) },
		"later": func(t *testing.T) *traveller {
			cl := travel(t, c, open)
			_, err := cl.Put(t.Context(), "k", nil)
			require.NoError(t, err)
			cl.roads.change(without(leader.ClientAddr()))
			noticed(t, cl.Client)
			return cl
		},
	} {
		t.Run(name, func(t *testing.T) {
			cl := setUp(t)
			doEverything(t, cl.Client)
			require.Positive(t, cl.relayed(t))
			require.Equal(t, leader, leaderOf(t, c, "k"), "it leads all the time")
			cl.roads.change(open)
			awaitDirect(t, cl)
		})
	}
}

// Where the addresses that nodes advertise lead nowhere, a client works through the endpoints that
// it was given.
func TestAdvertisedAddressesOutOfReach(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick, Splits: "a"})
	const balancer = "balancer.example:2379"
	for i, n := range c.Nodes() { // whichever node the balancer chooses
		t.Run(n.Name, func(t *testing.T) {
			cl := travel(t, c, func(addr string) string {
				if addr == balancer {
					return n.ClientAddr()
				}
				return ""
			}, balancer)
			doEverything(t, cl.Client)
			require.Positive(t, cl.relayed(t))
			if i == 0 {
				cl.roads.change(func(addr string) string {
					if addr == balancer {
						return n.ClientAddr()
					}
					return addr
				})
				awaitDirect(t, cl)
			}
		})
	}
}

// awaitDirect waits until requests need no other node any more.
func awaitDirect(t *testing.T, cl *traveller) {
	t.Helper()
	testcluster.Eventually(t, "requests to be sent directly", func(ctx context.Context) error {
		before := cl.relayed(t)
		for range 10 {
			if _, err := cl.Put(ctx, "k", nil); err != nil {
				return err
			}
		}
		if cl.relayed(t) > before {
			return errors.New("they are not")
		}
		return nil
	})
}

// doEverything does all that a client can.
func doEverything(t *testing.T, cl *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	put, err := cl.Put(ctx, "k", []byte("v1"))
	require.NoError(t, err)
	events := make(chan *mvccpb.Event)
	watching, leave := context.WithCancel(ctx)
	var watches sync.WaitGroup
	defer watches.Wait()
	defer leave()
	watches.Go(func() {
		for changes, err := range cl.Watch(watching, "k", client.FromRevision(put.Revision)) {
			for _, e := range changes.Events {
				select {
				case events <- e:
				case <-watching.Done():
				}
			}
			if err != nil && watching.Err() == nil {
				t.Errorf("watch: %v", err)
			}
		}
	})
	require.Equal(t, "v1", string((<-events).Kv.Value))
	_, err = cl.Put(ctx, "k", []byte("v2"))
	require.NoError(t, err)
	require.Equal(t, "v2", string((<-events).Kv.Value))

	for _, options := range [][]client.Option{nil, {client.WithPrefix()}, {client.Serializable()}, {client.AtRevision(put.Revision)}, {client.AtTime(time.Now())}} {
		got, err := cl.Get(ctx, "k", options...)
		require.NoError(t, err)
		require.NotNil(t, got.KV())
	}
	all, err := cl.Get(ctx, "", client.WithPrefix()) // a cut of all shards
	require.NoError(t, err)
	require.NotEmpty(t, all.KVs)
	keys := 0
	for _, err := range cl.Scan(ctx, "", client.WithPrefix(), client.AtRevision(all.Revision)) {
		require.NoError(t, err)
		keys++
	}
	require.Len(t, all.KVs, keys)

	done, err := cl.Txn(ctx, []client.Compare{client.IfValue("k", client.Equal, []byte("v2"))}, []client.Op{client.Put("k", []byte("v3"))}, nil)
	require.NoError(t, err)
	require.True(t, done.Succeeded)
	for i, o := range cl.Batch(ctx, client.Put("A", nil), client.Put("b", nil), client.Get("k"), client.Delete("A")) {
		require.NoError(t, o.Err, "operation %d", i)
	}

	session, err := cl.NewSession(ctx, time.Minute)
	require.NoError(t, err)
	ttl, err := cl.Renew(ctx, session.Lease())
	require.NoError(t, err)
	require.Positive(t, ttl)
	lock, err := session.Lock(ctx, "lock")
	require.NoError(t, err)
	guarded, err := cl.Txn(ctx, []client.Compare{lock.Guard()}, []client.Op{client.Put("locked", nil, client.WithLease(session.Lease()))}, nil)
	require.NoError(t, err)
	require.True(t, guarded.Succeeded)
	require.NoError(t, lock.Unlock(ctx))
	require.NoError(t, session.Close(ctx))
	gone, err := cl.Get(ctx, "locked")
	require.NoError(t, err)
	require.Nil(t, gone.KV())
	deleted, err := cl.Delete(ctx, "", client.WithPrefix())
	require.NoError(t, err)
	require.NotZero(t, deleted.Deleted)
}

// X1: while nodes lose each other and a client loses nodes, what it is told of each write that went through another node
// is true, and none is applied twice.
func TestRelayedWritesAreAppliedOnce(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{})
	leader := leaderOf(t, c, "k")
	cl := travel(t, c, without(leader.ClientAddr()))
	_, err := cl.Put(t.Context(), "k", nil)
	require.NoError(t, err)
	const writes = 300
	var outcomes [writes]error
	var all sync.WaitGroup
	all.Add(writes)
	for i := range writes {
		cl.Go(t.Context(), client.Put(fmt.Sprint("once/", i), nil), func(_ client.Result, err error) {
			outcomes[i] = err
			all.Done()
		})
		if i%100 == 50 {
			for _, n := range c.Nodes() {
				if n != leader {
					c.Network().Cut(n.Name, leader.Name)
					c.Network().Cut(leader.Name, n.Name)
				}
			}
		}
		if i%100 == 80 {
			c.Network().Heal()
		}
	}
	c.Network().Heal()
	all.Wait()
	cl.roads.change(open)
	applied := 0
	for i, outcome := range outcomes {
		var got client.Result
		testcluster.Eventually(t, "an answer", func(ctx context.Context) (err error) {
			got, err = cl.Get(ctx, fmt.Sprint("once/", i))
			return err
		})
		var unknown *client.UnknownOutcomeError
		switch {
		case outcome == nil:
			require.NotNil(t, got.KV(), "write %d was acknowledged", i)
			applied++
		case !errors.As(outcome, &unknown):
			require.Nil(t, got.KV(), "write %d failed for certain: %v", i, outcome)
		}
		if got.KV() != nil {
			require.Equal(t, int64(1), got.KV().Version, "write %d", i)
		}
	}
	require.NotZero(t, applied)
}

// A node that a client no longer hears of, although its connection stands: what is sent to it from then on goes through another
// node, renewals of leases too.
func TestALeaderThatIsNotHeard(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	l := &lines{muted: make(map[string]chan struct{})}
	cl := connect(t, c, func(cfg *client.Config) { cfg.Dial = l.dial })
	lease, err := cl.Grant(t.Context(), time.Minute)
	require.NoError(t, err)
	_, err = cl.Put(t.Context(), "k", nil, client.WithLease(lease))
	require.NoError(t, err)
	leader := leaderOf(t, c, "k")
	l.mute(leader.ClientAddr())
	defer l.unmute(leader.ClientAddr())
	// Writes that were sent before it counts as silent have an unknown outcome, after seven seconds. Others come through.
	testcluster.Eventually(t, "a write to come through", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		_, err := cl.Put(ctx, "k", []byte("v"))
		return err
	})
	_, err = cl.Renew(t.Context(), lease)
	require.NoError(t, err)
	require.NoError(t, cl.Revoke(t.Context(), lease))
	_, err = cl.Renew(t.Context(), lease)
	require.ErrorIs(t, err, shard.ErrLeaseNotFound)
	require.Equal(t, leader, leaderOf(t, c, "k"))
}
