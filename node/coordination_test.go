package node_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3electionpb"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3lockpb"
)

func session(t *testing.T, client *clientv3.Client, opts ...concurrency.SessionOption) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(client, opts...)
	require.NoError(t, err)
	return s
}

// etcd's recipes hold what they promise, through all nodes at once: a lock has one holder,
// and comes free with its holder's session.
func TestMutex(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	ctx := t.Context()
	var wg sync.WaitGroup
	var holders, most, turns int
	var mu sync.Mutex
	for i := range 6 {
		s := session(t, c.Client(t, c.Node(i%3+1)))
		m := concurrency.NewMutex(s, "locks/one")
		wg.Go(func() {
			for range 5 {
				if err := m.Lock(ctx); err != nil {
					t.Errorf("lock: %v", err)
					return
				}
				mu.Lock()
				holders++
				most, turns = max(most, holders), turns+1
				mu.Unlock()
				mu.Lock()
				holders--
				mu.Unlock()
				if err := m.Unlock(ctx); err != nil {
					t.Errorf("unlock: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, 30, turns)
	require.Equal(t, 1, most)

	dying := session(t, c.Client(t, c.Node(1)), concurrency.WithTTL(1))
	first := concurrency.NewMutex(dying, "locks/two")
	require.NoError(t, first.Lock(ctx))
	second := concurrency.NewMutex(session(t, c.Client(t, c.Node(2))), "locks/two")
	require.ErrorIs(t, second.TryLock(ctx), concurrency.ErrLocked)
	dying.Orphan() // nobody renews its lease any more
	require.NoError(t, second.Lock(ctx))
	got, err := c.Client(t, c.Node(3)).Get(ctx, first.Key())
	require.NoError(t, err)
	require.Empty(t, got.Kvs)
}

// An election has one leader, who is followed when he resigns or dies, and everybody who
// observes hears of each.
func TestElection(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	observed := concurrency.NewElection(session(t, c.Client(t, c.Node(3))), "elections/e").Observe(ctx)
	next := func() string {
		resp, ok := <-observed
		require.True(t, ok)
		return string(resp.Kvs[0].Value)
	}
	sessions := []*concurrency.Session{
		session(t, c.Client(t, c.Node(1))), session(t, c.Client(t, c.Node(2)), concurrency.WithTTL(1)), session(t, c.Client(t, c.Node(3))),
	}
	var elections []*concurrency.Election
	for _, s := range sessions {
		elections = append(elections, concurrency.NewElection(s, "elections/e"))
	}
	require.NoError(t, elections[0].Campaign(ctx, "first"))
	require.Equal(t, "first", next())
	require.NoError(t, elections[0].Proclaim(ctx, "first again"))
	require.Equal(t, "first again", next())
	won := make(chan error, 2)
	go func() { won <- elections[1].Campaign(ctx, "second") }()
	untilCampaigning(t, c, 2)
	require.NoError(t, elections[0].Resign(ctx))
	require.NoError(t, <-won)
	require.Equal(t, "second", next())
	go func() { won <- elections[2].Campaign(ctx, "third") }()
	untilCampaigning(t, c, 2)
	sessions[1].Orphan()
	require.NoError(t, <-won)
	require.Equal(t, "third", next())
	leader, err := elections[0].Leader(ctx)
	require.NoError(t, err)
	require.Equal(t, "third", string(leader.Kvs[0].Value))
}

// untilCampaigning waits until n have entered the election.
func untilCampaigning(t *testing.T, c *testcluster.Cluster, n int64) {
	t.Helper()
	client := c.Client(t)
	testcluster.Eventually(t, "a candidate", func(ctx context.Context) error {
		resp, err := client.Get(ctx, "elections/e/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && resp.Count != n {
			err = fmt.Errorf("there are %d", resp.Count)
		}
		return err
	})
}

// Transactional memory of one shard's keys, from all nodes at once: no increment is lost.
func TestSTM(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	var wg sync.WaitGroup
	for i := range 6 {
		client := c.Client(t, c.Node(i%3+1))
		wg.Go(func() {
			for range 10 {
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					for _, key := range []string{"stm/a", "stm/b"} {
						n, _ := strconv.Atoi(stm.Get(key))
						stm.Put(key, strconv.Itoa(n+1))
					}
					return nil
				})
				if err != nil {
					t.Errorf("increment: %v", err)
				}
			}
		})
	}
	wg.Wait()
	requireValue(t, c.Client(t), "stm/a", "60")
	requireValue(t, c.Client(t), "stm/b", "60")
}

// The Lock service does the same for clients without the recipes, also over HTTP.
func TestLockService(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	ctx := t.Context()
	client := c.Client(t, c.Node(1))
	locks := v3lockpb.NewLockClient(client.ActiveConnection())
	name := []byte("locks/service")
	first, second := grantLease(t, client, 60), grantLease(t, client, 60)
	held, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: int64(first)})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("locks/service/%x", first), string(held.Key))
	again, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: int64(first)})
	require.NoError(t, err)
	require.Equal(t, held.Key, again.Key, "who holds it has it")

	waiting := make(chan string, 1)
	go func() {
		waiting <- postJSON(t, c.Node(2), "/v3/lock/lock", map[string]any{"name": name, "lease": int64(second)})
	}()
	testcluster.Eventually(t, "the second to wait", func(ctx context.Context) error {
		resp, err := client.Get(ctx, "locks/service/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && resp.Count != 2 {
			err = fmt.Errorf("there are %d", resp.Count)
		}
		return err
	})
	require.Empty(t, waiting)
	_, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key})
	require.NoError(t, err)
	require.Contains(t, <-waiting, base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "locks/service/%x", second)))

	// Who gives up leaves nothing behind; whose lease goes holds nothing.
	impatient, leave := context.WithCancel(ctx)
	gone := make(chan error, 1)
	go func() {
		_, err := locks.Lock(impatient, &v3lockpb.LockRequest{Name: name, Lease: int64(first)})
		gone <- err
	}()
	untilCount := func(n int64) {
		t.Helper()
		testcluster.Eventually(t, "keys of the lock", func(ctx context.Context) error {
			resp, err := client.Get(ctx, "locks/service/", clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err == nil && resp.Count != n {
				err = fmt.Errorf("there are %d", resp.Count)
			}
			return err
		})
	}
	untilCount(2)
	leave()
	require.Error(t, <-gone)
	untilCount(1)
	_, err = client.Revoke(ctx, second)
	require.NoError(t, err)
	_, err = locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: int64(first)})
	require.NoError(t, err)
	_, err = locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: int64(second)})
	require.ErrorContains(t, err, "requested lease not found")
}

// The Election service, too.
func TestElectionService(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	client := c.Client(t, c.Node(1))
	elections := v3electionpb.NewElectionClient(client.ActiveConnection())
	name := []byte("elections/e")
	_, err := elections.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	require.ErrorContains(t, err, "election: no leader")
	observing, err := elections.Observe(ctx, &v3electionpb.LeaderRequest{Name: name})
	require.NoError(t, err)
	next := func() string {
		resp, err := observing.Recv()
		require.NoError(t, err)
		return string(resp.Kv.Value)
	}
	lease, other := grantLease(t, client, 60), grantLease(t, client, 60)
	won, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: int64(lease), Value: []byte("first")})
	require.NoError(t, err)
	require.Equal(t, "first", next())
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("again")})
	require.NoError(t, err)
	require.Equal(t, "again", next())
	leader, err := elections.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	require.NoError(t, err)
	require.Equal(t, "again", string(leader.Kv.Value))
	require.Equal(t, int64(lease), leader.Kv.Lease)
	require.Equal(t, won.Leader.Rev, leader.Kv.CreateRevision)

	campaign := make(chan string, 1)
	go func() {
		campaign <- postJSON(t, c.Node(2), "/v3/election/campaign", map[string]any{"name": name, "lease": int64(other), "value": []byte("second")})
	}()
	untilCampaigning(t, c, 2)
	_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: won.Leader})
	require.NoError(t, err)
	require.Contains(t, <-campaign, base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "elections/e/%x", other)))
	require.Equal(t, "second", next())
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("late")})
	require.ErrorContains(t, err, "election: not leader")

	body, err := json.Marshal(map[string]any{"name": name})
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.Node(3).ClientAddr()+"/v3/election/observe", bytes.NewReader(body))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var line struct {
		Result struct {
			KV struct{ Value []byte }
		}
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&line))
	require.Equal(t, "second", string(line.Result.KV.Value))
}

// postJSON returns the answer of a node's JSON gateway.
func postJSON(t *testing.T, n *testcluster.Node, path string, request map[string]any) string {
	code, text := post(t, n, path, request)
	if code != http.StatusOK {
		t.Errorf("%s: %d %s", path, code, text)
	}
	return text
}

// post returns the status and the answer of a node's JSON gateway.
func post(t *testing.T, n *testcluster.Node, path string, request map[string]any) (code int, text string) {
	body, err := json.Marshal(request)
	if err != nil {
		t.Errorf("encode a request: %v", err)
		return 0, ""
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.ClientAddr()+path, bytes.NewReader(body))
	if err != nil {
		t.Errorf("make a request: %v", err)
		return 0, ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("post: %v", err)
		return 0, ""
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: %s %v", path, resp.Status, err)
	}
	return resp.StatusCode, string(answer)
}
