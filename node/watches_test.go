package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/internal/testcluster"
	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// watched takes events from a watch and checks their order.
type watched struct {
	t      *testing.T
	events clientv3.WatchChan
	last   int64
}

func watching(t *testing.T, ctx context.Context, client *clientv3.Client, key string, opts ...clientv3.OpOption) *watched {
	t.Helper()
	w := &watched{t: t, events: client.Watch(ctx, key, append(opts, clientv3.WithCreatedNotify())...)}
	created := <-w.events
	require.NoError(t, created.Err())
	require.True(t, created.Created)
	return w
}

// take returns the next events, n at least. Each response has whole revisions, all above those
// before.
func (w *watched) take(n int) []*clientv3.Event {
	w.t.Helper()
	var events []*clientv3.Event
	for len(events) < n {
		resp, ok := <-w.events
		require.True(w.t, ok, "the watch ended")
		require.NoError(w.t, resp.Err())
		for i, e := range resp.Events {
			if i == 0 || e.Kv.ModRevision != resp.Events[i-1].Kv.ModRevision {
				require.Greater(w.t, e.Kv.ModRevision, w.last)
			}
			w.last = e.Kv.ModRevision
		}
		require.GreaterOrEqual(w.t, resp.Header.Revision, w.last)
		events = append(events, resp.Events...)
	}
	return events
}

func keysOf(events []*clientv3.Event) (keys []string) {
	for _, e := range events {
		keys = append(keys, string(e.Kv.Key))
	}
	return keys
}

// Through every node, also one that has no replica: everything over several shards, in
// the order of revisions, with what was there before.
func TestWatchThroughEveryNode(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	c.Add().Start(t)
	all, fromKey := everything()
	var watches []*watched
	for _, n := range c.Nodes() {
		client := c.Client(t, n)
		watches = append(watches,
			watching(t, t.Context(), client, all, fromKey, clientv3.WithPrevKV()),
			watching(t, t.Context(), client, spread(3, "k")))
	}
	writer := c.Client(t)
	const rounds = 5
	for round := range rounds {
		for i := range 8 {
			put(t, writer, spread(i, "k"), fmt.Sprint(round))
		}
	}
	_, err := writer.Txn(t.Context()).Then(clientv3.OpPut(spread(0, "a"), "1"), clientv3.OpPut(spread(0, "b"), "1"), clientv3.OpDelete(spread(0, "k"))).Commit()
	require.NoError(t, err)
	var first []*clientv3.Event
	for i, w := range watches {
		if i%2 == 1 {
			require.Equal(t, slices.Repeat([]string{spread(3, "k")}, rounds), keysOf(w.take(rounds)))
			continue
		}
		events := w.take(8*rounds + 3)
		for n, e := range events[:8*rounds] {
			require.Equal(t, spread(n%8, "k"), string(e.Kv.Key), "what one client wrote comes in its order")
			require.Equal(t, n < 8, e.PrevKv == nil)
			if n >= 8 {
				require.Equal(t, fmt.Sprint(n/8-1), string(e.PrevKv.Value))
			}
		}
		require.Equal(t, mvccpb.Event_DELETE, events[8*rounds+2].Type)
		require.Equal(t, fmt.Sprint(rounds-1), string(events[8*rounds+2].PrevKv.Value))
		if first == nil {
			first = events
		}
		require.Equal(t, fmt.Sprint(first), fmt.Sprint(events), "all nodes tell the same")
	}
}

// Lists and watches go together: what is watched from the revision behind a list's is
// what came after the list.
func TestListThenWatch(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	w := startWriters(t, 4, c.Client(t))
	all, fromKey := everything()
	client := c.Client(t)
	for range 5 {
		before := w.count()
		testcluster.Until(t, "some writes", func() bool { return w.count() > before+20 })
		list, err := client.Get(t.Context(), all, fromKey)
		require.NoError(t, err)
		have := make(map[string]bool)
		for _, kv := range list.Kvs {
			have[string(kv.Key)] = true
		}
		ctx, leave := context.WithCancel(t.Context())
		behind := watching(t, ctx, client, all, fromKey, clientv3.WithRev(list.Header.Revision+1))
		seen := 0
		for seen < 50 {
			resp := <-behind.events
			require.NoError(t, resp.Err())
			for _, e := range resp.Events {
				require.False(t, have[string(e.Kv.Key)], "%q was in the list and is an event after it", e.Kv.Key)
				have[string(e.Kv.Key)] = true
				seen++
			}
		}
		leave()
	}
}

// From old revisions, from the future, and from what was compacted.
func TestWatchStartRevisions(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	client := c.Client(t)
	all, fromKey := everything()
	var revs []int64
	for i := range 16 {
		revs = append(revs, put(t, client, spread(i, "k"), fmt.Sprint(i)))
	}
	require.Len(t, watching(t, t.Context(), client, all, fromKey, clientv3.WithRev(1)).take(16), 16)
	require.Equal(t, revs[5], watching(t, t.Context(), client, all, fromKey, clientv3.WithRev(revs[5])).take(11)[0].Kv.ModRevision)
	require.Equal(t, revs[6], watching(t, t.Context(), client, all, fromKey, clientv3.WithRev(revs[5]+1)).take(10)[0].Kv.ModRevision)

	future := watching(t, t.Context(), client, all, fromKey, clientv3.WithRev(revs[15]+1<<24)) // some 1.6 s ahead
	for {
		if rev := put(t, client, spread(0, "k"), "later"); rev >= revs[15]+1<<24 {
			require.Equal(t, rev, future.take(1)[0].Kv.ModRevision)
			break
		}
	}

	_, err := client.Compact(t.Context(), revs[8])
	require.NoError(t, err)
	for _, key := range []string{all, spread(0, "k")} {
		for _, n := range c.Nodes() {
			gone := c.Client(t, n).Watch(t.Context(), key, fromKey, clientv3.WithRev(revs[7]))
			resp := <-gone
			require.Equal(t, rpctypes.ErrCompacted, resp.Err())
			require.EqualValues(t, revs[8], resp.CompactRevision)
		}
	}
	require.Equal(t, revs[8], watching(t, t.Context(), client, all, fromKey, clientv3.WithRev(revs[8])).take(1)[0].Kv.ModRevision)
}

// What a client can ask for besides.
func TestWatchOptions(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4", Edit: func(_ string, cfg *node.Config) {
		cfg.WatchProgressInterval = 100 * time.Millisecond
	}})
	client := c.Client(t)
	puts := watching(t, t.Context(), client, "k", clientv3.WithPrefix(), clientv3.WithFilterDelete())
	deletes := watching(t, t.Context(), client, "k", clientv3.WithPrefix(), clientv3.WithFilterPut())
	notified := client.Watch(t.Context(), "other", clientv3.WithProgressNotify())
	put(t, client, "k1", "1")
	_, err := client.Delete(t.Context(), "k1")
	require.NoError(t, err)
	last := put(t, client, "k2", "1")
	require.Equal(t, []string{"k1", "k2"}, keysOf(puts.take(2)))
	require.Equal(t, mvccpb.Event_DELETE, deletes.take(1)[0].Type)
	for { // told of its own accord, up to what was written elsewhere too
		resp := <-notified
		require.True(t, resp.IsProgressNotify())
		if resp.Header.Revision >= last {
			break
		}
	}

	// A transaction larger than what one message may have comes in fragments.
	fragments := watching(t, t.Context(), client, "big", clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithPrevKV())
	value := strings.Repeat("v", 1<<20)
	for i := range 4 {
		put(t, client, fmt.Sprintf("big%d", i), value)
	}
	fragments.take(4)
	_, err = client.Delete(t.Context(), "big", clientv3.WithPrefix())
	require.NoError(t, err)
	var gone []*clientv3.Event
	for len(gone) == 0 { // a put that took too long was made again
		resp := <-fragments.events // clientv3 puts fragments together
		require.NoError(t, resp.Err())
		gone = slices.DeleteFunc(resp.Events, (*clientv3.Event).IsCreate)
		gone = slices.DeleteFunc(gone, (*clientv3.Event).IsModify)
	}
	require.Equal(t, []string{"big0", "big1", "big2", "big3"}, keysOf(gone))
}

// applied is how many log entries all shards have applied on the node.
func applied(n *testcluster.Node) (entries uint64) {
	n.Inside().Host().Each(func(r *replica.Replica) {
		entries += r.View().Applied
	})
	return entries
}

// Requested progress reaches what a reader was told before, promptly, and an idle cluster
// writes nothing for it.
func TestWatchProgress(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:8"})
	client := c.Client(t, c.Node(1))
	all, fromKey := everything()
	ctx := clientv3.WithRequireLeader(t.Context())
	w := watching(t, ctx, client, all, fromKey)
	single := watching(t, ctx, client, spread(1, "k"))
	progress := func(at int64) {
		t.Helper()
		require.NoError(t, client.RequestProgress(ctx))
		for _, w := range []*watched{w, single} {
			for {
				resp := <-w.events
				require.NoError(t, resp.Err())
				if resp.IsProgressNotify() {
					require.GreaterOrEqual(t, resp.Header.Revision, at)
					break
				}
			}
		}
	}
	for i := range 8 {
		put(t, client, spread(i, "k"), "v")
		list, err := client.Get(t.Context(), all, fromKey)
		require.NoError(t, err)
		progress(list.Header.Revision)
	}
	list, err := client.Get(t.Context(), all, fromKey)
	require.NoError(t, err)
	testcluster.Eventually(t, "all to be applied", func(context.Context) error { return caughtUp(c.Node(1), c.Node(2)) })
	before := applied(c.Node(1))
	for range 20 {
		progress(list.Header.Revision)
		idle, leave := context.WithCancel(t.Context())
		watching(t, idle, client, all, fromKey)
		leave()
	}
	require.Equal(t, before, applied(c.Node(1)), "an idle cluster writes nothing")
}

// Watches through everything that happens to nodes: each acknowledged write comes once,
// in order, whatever the client has to reconnect to.
func TestWatchSurvives(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	var views []*view
	for range 3 {
		views = append(views, follow(t, t.Context(), c.Client(t)))
	}
	views = append(views, follow(t, t.Context(), c.Client(t, c.Node(2))))
	w := startWriters(t, 4, c.Client(t, c.Node(1)), c.Client(t, c.Node(2)), c.Client(t, c.Node(3)))
	more := func() {
		before := w.count()
		testcluster.Until(t, "writes to go on", func() bool { return w.count() > before+100 })
	}
	more()
	for _, n := range c.Nodes() {
		n.Restart(t)
		more()
	}
	lonely := leaderOf(t, c, c.Node(1), spread(0, ""))
	rest := others(c, lonely)
	strict := follow(t, clientv3.WithRequireLeader(t.Context()), c.Client(t, lonely))
	c.Network().Isolate(lonely.Name, rest[0].Name, rest[1].Name)
	more()
	testcluster.Until(t, "the end of a watch that requires a leader", func() bool {
		return errors.Is(strict.missing(nil), rpctypes.ErrNoLeader)
	})
	c.Network().Heal()
	more()
	w.stop()
	for i, v := range views {
		testcluster.Eventually(t, fmt.Sprintf("all writes to come from watch %d", i), func(context.Context) error { return v.missing(w.mu.acked) })
	}
}

// view gathers what a watch of everything tells of writers.
type view struct {
	mu   sync.Mutex
	have map[string]int64
	err  error
}

func follow(t *testing.T, ctx context.Context, client *clientv3.Client) *view {
	all, fromKey := everything()
	v := &view{have: make(map[string]int64)}
	events := client.Watch(ctx, all, fromKey, clientv3.WithCreatedNotify())
	require.True(t, (<-events).Created)
	var reading sync.WaitGroup
	reading.Go(func() {
		last := int64(0)
		for resp := range events {
			v.mu.Lock()
			if v.err == nil && ctx.Err() == nil {
				v.err = resp.Err()
			}
			for _, e := range resp.Events {
				if e.Kv.ModRevision <= last {
					v.err = fmt.Errorf("%q at %d came after %d", e.Kv.Key, e.Kv.ModRevision, last)
				}
				last = e.Kv.ModRevision
				v.have[string(e.Kv.Key)] = last
			}
			v.mu.Unlock()
		}
	})
	t.Cleanup(reading.Wait)
	return v
}

// missing says what the watch has told wrong or not yet.
func (v *view) missing(acked map[string]int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return v.err
	}
	for key, rev := range acked {
		if v.have[key] != rev {
			return fmt.Errorf("%q was written at %d and told at %d, one of %d of %d", key, rev, v.have[key], len(v.have), len(acked))
		}
	}
	return nil
}

// Ten thousand watches whose client does not read are nobody else's business.
func TestManyWatchesThatAreNotRead(t *testing.T) {
	c := testcluster.Start(t, testcluster.Options{Splits: "uniform:4"})
	const many = 10_000
	stream, err := pb.NewWatchClient(c.Client(t, c.Node(1)).ActiveConnection()).Watch(t.Context())
	require.NoError(t, err)
	before := heap()
	sent := make(chan error, 1)
	go func() {
		for i := range many {
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
				Key: []byte(spread(i, "k")),
			}}}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range many {
		resp, err := stream.Recv()
		require.NoError(t, err)
		require.True(t, resp.Created)
	}
	require.NoError(t, <-sent)
	t.Logf("%d bytes for each idle watch of a key", (heap()-before)/many)

	client := c.Client(t, c.Node(1))
	all, fromKey := everything()
	w := watching(t, t.Context(), client, all, fromKey)
	value := strings.Repeat("v", 10_000)
	for i := range 24 {
		put(t, client, spread(i, "k"), value) // 100 MB of events for those who do not read
		w.take(1)
	}
	// They are all there when they are asked for.
	got := make(map[int64]int)
	for events := 0; events < 3*many; {
		resp, err := stream.Recv()
		require.NoError(t, err)
		got[resp.WatchId] += len(resp.Events)
		events += len(resp.Events)
	}
	for id, n := range got {
		require.Equal(t, 3, n, "watch %d", id)
	}
}

// heap is how many bytes are in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// As with curl.
func TestWatchOverHTTP(t *testing.T) {
	t.Parallel()
	c := testcluster.Start(t, testcluster.Options{})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.Node(1).ClientAddr()+"/v3/watch", strings.NewReader(`{"create_request":{"key":"Zm9v","range_end":"AA=="}}`))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	put(t, c.Client(t), "foo", "bar")
	buf := make([]byte, 4096)
	var text string
	for !strings.Contains(text, "YmFy") {
		n, err := resp.Body.Read(buf)
		require.NoError(t, err, text)
		text += string(buf[:n])
	}
	require.Contains(t, text, `"created":true`)
	c.Node(1).Stop() // does not wait for the watch
	_, err = io.ReadAll(resp.Body)
	_ = err // however the connection ends
	http.DefaultClient.CloseIdleConnections()
}
