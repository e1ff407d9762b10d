package node_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// The clusters here have elections of 0.5 s, so leases live for a second at least.

// grantID grants a lease of a given ID, which clientv3 cannot ask for.
func grantID(ctx context.Context, client *clientv3.Client, id, ttl int64) (*pb.LeaseGrantResponse, error) {
	resp, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	return resp, rpctypes.Error(err)
}

func grantLease(t *testing.T, client *clientv3.Client, ttl int64) clientv3.LeaseID {
	t.Helper()
	resp, err := client.Grant(t.Context(), ttl)
	require.NoError(t, err)
	require.Equal(t, ttl, resp.TTL)
	return resp.ID
}

// attach puts keys of the name in all shards of a cluster of eight, or fewer, and returns
// them in order.
func attach(t *testing.T, client *clientv3.Client, id clientv3.LeaseID, name string) []string {
	t.Helper()
	var keys []string
	for i := range 8 {
		keys = append(keys, spread(i, name))
		_, err := client.Put(t.Context(), keys[i], name, clientv3.WithLease(id))
		require.NoError(t, err)
	}
	return keys
}

// attachWhileRenewed is attach, for a lease that might otherwise end before it has all its keys.
func attachWhileRenewed(t *testing.T, client *clientv3.Client, id clientv3.LeaseID, name string) []string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	renewals, err := client.KeepAlive(ctx, id)
	require.NoError(t, err)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for range renewals { // nobody else reads them
		}
	})
	defer renewing.Wait()
	defer stop()
	return attach(t, client, id, name)
}

// attached are the keys of a lease as the cluster tells them.
func attached(t *testing.T, client *clientv3.Client, id clientv3.LeaseID) []string {
	t.Helper()
	resp, err := client.TimeToLive(t.Context(), id, clientv3.WithAttachedKeys())
	require.NoError(t, err)
	var keys []string
	for _, key := range resp.Keys {
		keys = append(keys, string(key))
	}
	return keys
}

// present are those of the keys that exist.
func present(ctx context.Context, client *clientv3.Client, keys []string) ([]string, error) {
	all, from := everything()
	resp, err := client.Get(ctx, all, from, clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var found []string
	for _, kv := range resp.Kvs {
		if slices.Contains(keys, string(kv.Key)) {
			found = append(found, string(kv.Key))
		}
	}
	return found, nil
}

// untilGone waits until none of the keys exists.
func untilGone(t *testing.T, client *clientv3.Client, keys []string) {
	t.Helper()
	testcluster.Eventually(t, "the keys to go", func(ctx context.Context) error {
		found, err := present(ctx, client, keys)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("there is still %q", found)
		}
		return err
	})
}

func requirePresent(t *testing.T, client *clientv3.Client, keys []string) {
	t.Helper()
	found, err := present(t.Context(), client, keys)
	require.NoError(t, err)
	require.ElementsMatch(t, keys, found)
}

// Every node serves leases of every home, with keys in every shard.
func TestLeasesThroughEveryNode(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8", Tick: steadyTick})
	for _, n := range c.Nodes() {
		client, ctx := c.Client(t, n), t.Context()
		for range 4 { // homes are anywhere
			id := grantLease(t, client, 60)
			keys := attach(t, client, id, n.Name)
			require.Equal(t, keys, attached(t, client, id))
			alive, err := client.KeepAliveOnce(ctx, id)
			require.NoError(t, err)
			require.EqualValues(t, 60, alive.TTL)
			list, err := client.Leases(ctx)
			require.NoError(t, err)
			require.Contains(t, list.Leases, clientv3.LeaseStatus{ID: id})

			put(t, client, keys[3], "detached")
			put(t, client, keys[4], "of another")
			other := grantLease(t, client, 60)
			_, err = client.Put(ctx, keys[4], "of another", clientv3.WithLease(other))
			require.NoError(t, err)
			last, err := client.Revoke(ctx, id)
			require.NoError(t, err)
			requirePresent(t, client, keys[3:5])
			all, from := everything()
			got, err := client.Get(ctx, all, from, clientv3.WithCountOnly())
			require.NoError(t, err)
			require.Equal(t, got.Header.Revision, last.Header.Revision, "the largest revision of the deletions")
			before, err := client.Get(ctx, keys[0], clientv3.WithRev(last.Header.Revision))
			require.NoError(t, err)
			require.Empty(t, before.Kvs, "all of it is at or below that revision")

			_, err = client.Revoke(ctx, other)
			require.NoError(t, err)
			_, err = client.Delete(ctx, keys[3])
			require.NoError(t, err)
			for _, key := range keys {
				_, err = client.Put(ctx, key, "late", clientv3.WithLease(id))
				require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
			}
			_, err = client.Revoke(ctx, id)
			require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
			ttl, err := client.TimeToLive(ctx, id)
			require.NoError(t, err)
			require.EqualValues(t, -1, ttl.TTL)
		}
	}
}

// A lease that nobody renews goes, with its keys in all shards, not before its time. One
// that is renewed stays. The ID is free afterwards.
func TestLeasesExpire(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	client := c.Client(t)
	kept := grantLease(t, client, 5)
	renewals, err := client.KeepAlive(t.Context(), kept)
	require.NoError(t, err)
	go func() {
		for range renewals { // the client complains of a full channel otherwise
		}
	}()
	keptKeys := attach(t, client, kept, "kept")

	const id, lostTTL = 77, 5 // long enough to attach keys meanwhile
	for range 2 {             // it may be granted again
		_, err := client.Put(t.Context(), spread(5, "lost"), "", clientv3.WithLease(id))
		require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
		began := time.Now()
		_, err = grantID(t.Context(), client, id, lostTTL)
		require.NoError(t, err)
		keys := attach(t, client, id, "lost")
		untilGone(t, client, keys)
		require.GreaterOrEqual(t, time.Since(began), lostTTL*time.Second, "nothing ends early")
	}
	requirePresent(t, client, keptKeys)
	require.Equal(t, keptKeys, attached(t, client, kept))
}

// While leaders come and go, a lease that is renewed does not end, and one that is not
// ends after all.
func TestLeasesOutliveTheirLeaders(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	client := c.Client(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var leases []clientv3.LeaseID
	var keys []string
	for i := range 4 { // a few homes
		id := grantLease(t, client, 2)
		renewals, err := client.KeepAlive(ctx, id)
		require.NoError(t, err)
		go func() {
			for range renewals {
			}
		}()
		leases = append(leases, id)
		keys = append(keys, attach(t, client, id, fmt.Sprint("kept/", i))...)
	}
	for round := range 6 {
		to := c.Node(round%3 + 1)
		for _, n := range c.Nodes() {
			for _, d := range n.Inside().Map().Shards() {
				if r, ok := n.Inside().Host().Replica(d.ID); ok && r.Leads() {
					yieldTo(n, d.ID, nodeID(to))
				}
			}
		}
		for _, id := range leases {
			testcluster.Eventually(t, "the home of a lease to answer", func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, writeTimeout)
				defer cancel()
				ttl, err := client.TimeToLive(ctx, id)
				if err == nil && ttl.TTL < 0 {
					t.Fatalf("lease %x ended early", id)
				}
				return err
			})
		}
	}
	lost := leaderOf(t, c, c.Node(1), string(shard.HomeKey(int64(leases[0]))))
	lost.Stop()
	rest := c.Client(t, others(c, lost)...)
	for _, id := range leases {
		testcluster.Eventually(t, "the leases' new leaders", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, writeTimeout)
			defer cancel()
			resp, err := rest.KeepAliveOnce(ctx, id)
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				t.Fatalf("lease %x ended early", id)
			}
			if err == nil {
				require.EqualValues(t, 2, resp.TTL)
			}
			return err
		})
	}
	requirePresent(t, rest, keys)
	stop()
	untilGone(t, rest, keys)
	lost.Start(t)
	untilGone(t, c.Client(t, lost), keys)
}

// timeLeft is what the leader of a lease's home says, once it does.
func timeLeft(t *testing.T, c *testcluster.Cluster, lease clientv3.LeaseID) (left time.Duration, term uint64) {
	t.Helper()
	home := string(shard.HomeKey(int64(lease)))
	testcluster.Eventually(t, "the home of a lease to answer", func(ctx context.Context) error {
		inside := leaderOf(t, c, c.Node(1), home).Inside()
		r, ok := inside.Host().Replica(inside.Map().Lookup([]byte(home)).ID)
		if !ok {
			return errors.New("it does not run")
		}
		status, err := r.LeaseStatus(ctx, int64(lease))
		left, term = status.TTL, r.Term()
		return err
	})
	return left, term
}

// L9: what leases have left goes with leadership from node to node. No handing over adds to it.
func TestLeasesAreNotProlongedByHandovers(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	client := c.Client(t)
	forgotten, renewed := grantLease(t, client, 3600), grantLease(t, client, 3600)
	timeLeft(t, c, forgotten)
	for range 5 {
		_, err := client.KeepAliveOnce(t.Context(), renewed)
		require.NoError(t, err)
		before, reigned := timeLeft(t, c, forgotten)
		fresh, _ := timeLeft(t, c, renewed)
		leader := id(leaderOf(t, c, c.Node(1), ""))
		d := theShard(c.Node(1))
		heir := d.Replicas[slices.IndexFunc(d.Replicas, func(r shard.Replica) bool { return r.Node != leader })].Node
		_, err = c.Node(1).Inside().Propose(t.Context(), placement.Prefer(d, heir))
		require.NoError(t, err)
		testcluster.Until(t, "the preferred node to lead", func() bool { return id(leaderOf(t, c, c.Node(1), "")) == heir })
		after, reigns := timeLeft(t, c, forgotten)
		if reigns > reigned+1 {
			continue // somebody was elected in between
		}
		require.LessOrEqual(t, after, before+time.Millisecond)
		inherited, _ := timeLeft(t, c, renewed)
		require.LessOrEqual(t, inherited, fresh+time.Millisecond)
	}
}

// L9: nor does it add anything that leases get another home.
func TestLeasesAreNotProlongedByReshapes(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Tick: steadyTick})
	client := c.Client(t)
	var leases []clientv3.LeaseID
	for range 8 {
		leases = append(leases, grantLease(t, client, 3600))
	}
	look := func() (left []time.Duration) {
		for _, id := range leases {
			d, _ := timeLeft(t, c, id)
			left = append(left, d)
		}
		return left
	}
	shorter := func(before []time.Duration) {
		t.Helper()
		for i, after := range look() {
			require.LessOrEqual(t, after, before[i]+time.Millisecond, "lease %x", leases[i])
		}
	}
	look()
	for range 3 {
		before := look()
		splitAt(t, c.Node(1), spread(4, ""))
		shorter(before)
		before = look()
		mergeAt(t, c, c.Node(2), spread(4, ""))
		shorter(before)
	}
}

func nodeID(n *testcluster.Node) shard.NodeID {
	for _, o := range n.Inside().Map().Nodes() {
		if o.Name == n.Name {
			return o.ID
		}
	}
	return 0
}

// Leases and what is attached to them outlive all nodes; the time without a leader is not
// counted.
func TestLeasesOutliveRestarts(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	client := c.Client(t)
	long := grantLease(t, client, 3600)
	keys := attach(t, client, long, "long")
	short := grantLease(t, client, 5) // enough for its keys, also where puts are slow
	shortKeys := attach(t, client, short, "short")
	c.StopAll()
	c.StartAll(t)
	client = c.Client(t)
	ttl, err := client.TimeToLive(t.Context(), long, clientv3.WithAttachedKeys())
	require.NoError(t, err)
	require.EqualValues(t, 3600, ttl.GrantedTTL)
	require.Greater(t, ttl.TTL, int64(3000))
	require.Len(t, ttl.Keys, 8)
	untilGone(t, client, shortKeys)
	requirePresent(t, client, keys)
	_, err = client.Revoke(t.Context(), long)
	require.NoError(t, err)
	untilGone(t, client, keys)
}

// A key that is put while its lease is being revoked is refused or goes with the rest, over
// and over with leases of one ID.
func TestRevokeRacesPuts(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	const id, rounds, writers = 4711, 15, 6
	admin := c.Client(t, c.Node(1))
	var clients []*clientv3.Client
	for _, n := range c.Nodes() {
		clients = append(clients, c.Client(t, n))
	}
	accepted := 0
	for round := range rounds {
		_, err := grantID(t.Context(), admin, id, 3600)
		require.NoError(t, err)
		var wg sync.WaitGroup
		var mu sync.Mutex
		begun := make(chan struct{}, 1)
		for w := range writers {
			wg.Go(func() {
				for i := 0; ; i++ {
					_, err := clients[w%3].Put(t.Context(), spread((w+i)%8, fmt.Sprintf("%d/%d/%d", round, w, i)), "", clientv3.WithLease(id))
					if errors.Is(err, rpctypes.ErrLeaseNotFound) {
						return
					}
					if err != nil {
						t.Errorf("put: %v", err)
						return
					}
					mu.Lock()
					accepted++
					mu.Unlock()
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 1 + round%5 {
			<-begun
		}
		_, err = admin.Revoke(t.Context(), id)
		require.NoError(t, err)
		wg.Wait()
		all, from := everything()
		left, err := admin.Get(t.Context(), all, from, clientv3.WithKeysOnly())
		require.NoError(t, err)
		require.Empty(t, left.Kvs)
	}
	require.Positive(t, accepted)
	t.Logf("%d puts accepted in %d rounds", accepted, rounds)
}

// A lease may have any number of keys.
func TestLeaseOfManyKeys(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	client := c.Client(t)
	id := grantLease(t, client, 3600)
	const batches, batch = 50, 100
	var wg sync.WaitGroup
	for b := range batches {
		wg.Go(func() {
			var puts []clientv3.Op
			for i := range batch {
				puts = append(puts, clientv3.OpPut(spread(2*(b%4), fmt.Sprintf("%03d/%03d", b, i)), "", clientv3.WithLease(id)))
			}
			if _, err := client.Txn(t.Context()).Then(puts...).Commit(); err != nil {
				t.Errorf("put a batch: %v", err)
			}
		})
	}
	wg.Wait()
	keys := attached(t, client, id)
	require.Len(t, keys, batches*batch)
	require.IsIncreasing(t, keys)
	_, err := client.Revoke(t.Context(), id)
	require.NoError(t, err)
	all, from := everything()
	left, err := client.Get(t.Context(), all, from, clientv3.WithKeysOnly())
	require.NoError(t, err)
	require.Empty(t, left.Kvs)
}

// A revocation that whoever began it has left is finished by the leader of the home.
func TestRevocationLeftBehind(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	client := c.Client(t)
	id := grantLease(t, client, 3600)
	keys := attach(t, client, id, "orphan")
	home := string(shard.HomeKey(int64(id)))
	host := leaderOf(t, c, c.Node(1), home).Inside()
	d := host.Map().Lookup([]byte(home))
	r, ok := host.Host().Replica(d.ID)
	require.True(t, ok)
	body, err := (&shardpb.LeaseCommand{Lease: int64(id)}).MarshalVT()
	require.NoError(t, err)
	done := make(chan shard.Result, 1)
	r.Propose(&shardpb.Command{Kind: shardpb.Kind_LEASE_REVOKE, Epoch: d.Epoch, Body: body}, func(result shard.Result) { done <- result })
	require.NoError(t, (<-done).Err)
	requirePresent(t, client, keys)
	untilGone(t, client, keys)
	testcluster.Eventually(t, "the ID to be free", func(ctx context.Context) error {
		_, err := grantID(ctx, client, int64(id), 3600)
		return err
	})
}

// Whoever watches sees each key of a lease go once, whether it expired or was revoked, by
// one node or by several at a time.
func TestKeysOfALeaseGoOnce(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	client := c.Client(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	all, from := everything()
	watch := client.Watch(clientv3.WithRequireLeader(ctx), all, from, clientv3.WithCreatedNotify(), clientv3.WithPrevKV())
	created := <-watch
	require.NoError(t, created.Err())

	wanted := make(map[string]int)
	var wg sync.WaitGroup
	for i := range 6 {
		expires := i%2 == 0
		ttl := int64(60)
		if expires {
			ttl = 2
		}
		id := grantLease(t, client, ttl)
		for _, key := range attachWhileRenewed(t, client, id, fmt.Sprint("watched/", i)) {
			wanted[key] = 1
		}
		if expires {
			continue
		}
		for _, n := range c.Nodes() { // all of them at the same time
			one := c.Client(t, n)
			wg.Go(func() {
				if _, err := one.Revoke(t.Context(), id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
					t.Errorf("revoke: %v", err)
				}
			})
		}
	}
	wg.Wait()
	keys := slices.Collect(maps.Keys(wanted))
	untilGone(t, client, keys)
	end := put(t, client, spread(0, "the end"), "")

	got := make(map[string]int)
	for last := int64(0); last < end; {
		resp, ok := <-watch
		require.True(t, ok)
		require.NoError(t, resp.Err())
		for _, e := range resp.Events {
			last = e.Kv.ModRevision
			if e.Type == clientv3.EventTypeDelete {
				got[string(e.Kv.Key)]++
				require.NotZero(t, e.PrevKv.Lease)
			}
		}
	}
	require.Equal(t, wanted, got)
}
