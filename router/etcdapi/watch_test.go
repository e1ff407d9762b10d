package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
)

// wire is a Watch stream as a client sees it, rendered in short.
type wire struct {
	t      *testing.T
	stream pb.Watch_WatchClient
	leave  context.CancelFunc
}

func (f *face) wire(t *testing.T, ctx context.Context) *wire {
	t.Helper()
	ctx, leave := context.WithCancel(ctx)
	t.Cleanup(leave)
	stream, err := pb.NewWatchClient(f.client.ActiveConnection()).Watch(ctx)
	require.NoError(t, err)
	return &wire{t: t, stream: stream, leave: leave}
}

func (w *wire) create(req *pb.WatchCreateRequest) {
	w.t.Helper()
	require.NoError(w.t, w.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}))
}

func (w *wire) cancel(id int64) {
	w.t.Helper()
	require.NoError(w.t, w.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}))
}

func (w *wire) askProgress() {
	w.t.Helper()
	require.NoError(w.t, w.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}))
}

// next renders the next response: "0@42 created", "0@43 put a=1", "-1@43" for progress.
func (w *wire) next() string {
	w.t.Helper()
	resp, err := w.stream.Recv()
	require.NoError(w.t, err)
	require.EqualValues(w.t, 0xC1, resp.Header.ClusterId)
	require.EqualValues(w.t, 0xA1, resp.Header.MemberId)
	require.EqualValues(w.t, 7, resp.Header.RaftTerm)
	return render(resp)
}

func render(resp *pb.WatchResponse) string {
	out := fmt.Sprintf("%d@%d", resp.WatchId, resp.Header.Revision)
	if resp.Created {
		out += " created"
	}
	if resp.Canceled {
		out += " canceled"
	}
	if resp.CompactRevision != 0 {
		out += fmt.Sprintf(" compacted %d", resp.CompactRevision)
	}
	if resp.CancelReason != "" {
		out += ": " + resp.CancelReason
	}
	for _, e := range resp.Events {
		out += fmt.Sprintf(" %s %s=%.9s", strings.ToLower(e.Type.String()), e.Kv.Key, e.Kv.Value)
		if e.PrevKv != nil {
			out += " with prev"
		}
	}
	if resp.Fragment {
		out += " ..."
	}
	return out
}

func key(k string) *pb.WatchCreateRequest { return &pb.WatchCreateRequest{Key: []byte(k)} }

func from(k string, rev int64) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte(k), StartRevision: rev}
}

// IDs count from 0 on each stream; a client may choose others, and those are left out.
func TestWatchIDs(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.create(key("a"))
	require.Equal(t, "0@42 created", w.next())
	w.create(&pb.WatchCreateRequest{Key: []byte("b"), WatchId: 1})
	require.Equal(t, "1@42 created", w.next())
	w.create(key("c"))
	require.Equal(t, "2@42 created", w.next())
	w.create(&pb.WatchCreateRequest{Key: []byte("d"), WatchId: 2})
	require.Equal(t, "-1@42 created canceled: mvcc: duplicate watch ID provided on the WatchStream", w.next())
	w.cancel(1)
	require.Equal(t, "1@42 canceled", w.next())
	w.create(&pb.WatchCreateRequest{Key: []byte("d"), WatchId: 1})
	require.Equal(t, "1@42 created", w.next())

	other := f.wire(t, t.Context())
	other.create(key("a"))
	require.Equal(t, "0@42 created", other.next())

	f.watches.put("1", "d")
	require.Equal(t, "1@43 put d=1", w.next())
}

func TestWatchRefusals(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.create(from("a", -1))
	require.Equal(t, "-1@42 created canceled: etcdserver: mvcc: required revision has been compacted", w.next())
	for _, end := range []string{"a", "A"} {
		w.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte(end)})
		require.Equal(t, "-1@42 created canceled: mvcc: watcher range is empty", w.next())
	}
	// A cancel of what is not there has no answer, nor has a request of a newer client.
	w.cancel(7)
	require.NoError(t, w.stream.Send(&pb.WatchRequest{}))
	// No key is the smallest key; with "\x00" as the end it is all of them.
	w.create(&pb.WatchCreateRequest{})
	require.Equal(t, "0@42 created", w.next())
	w.create(&pb.WatchCreateRequest{RangeEnd: []byte{0}})
	require.Equal(t, "1@42 created", w.next())
	f.watches.put("1", "x")
	require.Equal(t, "1@43 put x=1", w.next())
	f.watches.put("2", "\x00")
	require.ElementsMatch(t, []string{"0@44 put \x00=2", "1@44 put \x00=2"}, []string{w.next(), w.next()})
}

// A watch without a start begins after what there was when it was created, and says so.
func TestWatchStarts(t *testing.T) {
	f := newFace(t)
	f.watches.put("old", "a")
	w := f.wire(t, t.Context())
	w.create(key("a"))
	require.Equal(t, "0@43 created", w.next())
	f.watches.put("new", "a", "a2")
	require.Equal(t, "0@44 put a=new", w.next())

	w.create(from("a", 43))
	require.Equal(t, "1@44 created", w.next())
	require.Equal(t, "1@44 put a=old put a=new", w.next())

	f.watches.do(func() { f.watches.mu.elsewhere = true })
	w.create(key("b"))
	require.Equal(t, "2@44 created", w.next())

	w.create(from("a", 47)) // the future
	require.Equal(t, "3@44 created", w.next())
	for i := range 4 {
		rev := f.watches.put(fmt.Sprint(i), "a")
		got := []string{w.next(), w.next()}
		if rev >= 47 {
			got = append(got, w.next())
		}
		require.NotContains(t, got, fmt.Sprintf("3@%d put a=%d", 46, i))
		require.Len(t, got, map[bool]int{false: 2, true: 3}[rev >= 47])
	}
}

// A watch may learn where it begins when its stream has ended: nothing is left of it.
func TestWatchBeginsTooLate(t *testing.T) {
	f := newFace(t)
	f.watches.do(func() { f.watches.mu.settling = make([]func(), 0, 2) })
	ctx, cancel := context.WithCancel(t.Context())
	w := f.wire(t, ctx)
	w.create(key("a"))
	w.create(key("b"))
	told := func() (all []func()) {
		f.watches.do(func() { all = f.watches.mu.settling })
		return all
	}
	require.Eventually(t, func() bool { return len(told()) == 2 }, 10*time.Second, time.Millisecond)
	told()[0]()
	require.Equal(t, "0@42 created", w.next())
	cancel()
	require.Eventually(t, func() bool { return f.watches.opened() == 0 }, 10*time.Second, time.Millisecond)
	told()[1]()
	require.Eventually(t, func() bool { return f.watches.opened() == 0 }, 10*time.Second, time.Millisecond)
}

// A watch that has to wait for its start does not let later answers overtake.
func TestWatchAnswersKeepTheirOrder(t *testing.T) {
	f := newFace(t)
	f.watches.do(func() { f.watches.mu.unsettled = shard.ErrUnavailable })
	w := f.wire(t, t.Context())
	w.create(key("a"))
	w.create(from("b", 1))
	w.cancel(0)
	w.askProgress()
	require.Eventually(t, func() bool { return f.watches.opened() == 1 }, 10*time.Second, time.Millisecond)
	f.watches.do(func() { f.watches.mu.unsettled = nil })
	require.Equal(t, "0@42 created", w.next())
	require.Equal(t, "1@42 created", w.next())
	require.Equal(t, "0@42 canceled", w.next())
	require.Equal(t, "-1@42", w.next())
	require.Equal(t, 1, f.watches.opened())
}

func TestWatchCompacted(t *testing.T) {
	f := newFace(t)
	f.watches.put("1", "a")
	f.watches.put("2", "a")
	f.watches.do(func() { f.watches.mu.compacted = 44 })
	w := f.wire(t, t.Context())
	w.create(from("a", 43))
	require.Equal(t, "0@44 created", w.next())
	require.Equal(t, "0@0 canceled compacted 44", w.next())
	require.Zero(t, f.watches.opened())
	// The compacted revision itself is still there, and others go on.
	w.create(from("a", 44))
	require.Equal(t, "1@44 created", w.next())
	require.Equal(t, "1@44 put a=2", w.next())
	// As in etcd, its ID stays taken until it is canceled too.
	w.cancel(0)
	require.Equal(t, "0@44 canceled", w.next())
}

func TestWatchFiltersAndPrevKV(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}})
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}, PrevKv: true})
	require.Equal(t, "0@42 created", w.next())
	require.Equal(t, "1@42 created", w.next())
	f.watches.put("1", "a")
	require.Equal(t, "1@43 put a=1 with prev", w.next())
	f.watches.change(mvccpb.Event_DELETE, "", "a")
	require.Equal(t, "0@44 delete a=", w.next())
}

// A large response is divided for those who ask for that, and its parts say so.
func TestWatchFragments(t *testing.T) {
	f := newFaceOf(t, Config{MaxRequestBytes: 1})
	limit := 1 + messageOverheadBytes
	var keys []string
	for i := range 5 {
		keys = append(keys, fmt.Sprintf("a%d", i))
	}
	f.watches.put(strings.Repeat("v", limit/2-100), keys...)
	w := f.wire(t, t.Context())
	prefix := &pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), StartRevision: 1}
	w.create(prefix)
	require.Equal(t, "0@43 created", w.next())
	require.Equal(t, "0@43 put a0=vvvvvvvvv put a1=vvvvvvvvv put a2=vvvvvvvvv put a3=vvvvvvvvv put a4=vvvvvvvvv", w.next())
	prefix.Fragment = true
	w.create(prefix)
	require.Equal(t, "1@43 created", w.next())
	require.Equal(t, "1@43 put a0=vvvvvvvvv put a1=vvvvvvvvv ...", w.next())
	require.Equal(t, "1@43 put a2=vvvvvvvvv put a3=vvvvvvvvv ...", w.next())
	require.Equal(t, "1@43 put a4=vvvvvvvvv", w.next())
	f.watches.put("small", "a", "a1")
	require.ElementsMatch(t, []string{"0@44 put a=small put a1=small", "1@44 put a=small put a1=small"}, []string{w.next(), w.next()})
}

// A revision is never divided over responses; many are, so that none becomes too large.
func TestWatchResponsesAreBounded(t *testing.T) {
	f := newFace(t)
	for range 30 {
		f.watches.put(strings.Repeat("v", responseBytes/8), "a1", "a2")
	}
	w := f.wire(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("b"), StartRevision: 1})
	require.Equal(t, "0@72 created", w.next())
	var events, responses int
	for events < 60 {
		resp, err := w.stream.Recv()
		require.NoError(t, err)
		require.Zero(t, len(resp.Events)%2)
		require.LessOrEqual(t, len(resp.Events), 10)
		require.Equal(t, resp.Events[len(resp.Events)-1].Kv.ModRevision, resp.Header.Revision)
		events, responses = events+len(resp.Events), responses+1
	}
	require.Equal(t, 60, events)
	require.Less(t, responses, 10)
}

// What the watch has beyond one poll comes too when that poll's events took several responses: the feed said so only once.
func TestWatchGoesOnBehindABacklog(t *testing.T) {
	f := newFace(t)
	const events = 2*pollEvents + 1
	for range events {
		f.watches.put(strings.Repeat("v", responseBytes/32), "a")
	}
	w := f.wire(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 1})
	w.next()
	for sent := 0; sent < events; {
		resp, err := w.stream.Recv()
		require.NoError(t, err)
		sent += len(resp.Events)
	}
}

// Requested progress comes once for all, when all have been sent everything up to it.
func TestWatchProgressRequest(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.askProgress() // nobody to promise anything
	w.create(key("a"))
	w.create(key("b"))
	require.Equal(t, "0@42 created", w.next())
	require.Equal(t, "1@42 created", w.next())
	w.askProgress()
	require.Equal(t, "-1@42", w.next())

	f.watches.do(func() { f.watches.mu.behind["b"] = 42 })
	f.watches.put("2", "b")
	f.watches.put("1", "a")
	require.Equal(t, "0@44 put a=1", w.next())
	w.askProgress()
	f.aimed(t)
	f.watches.do(func() { delete(f.watches.mu.behind, "b") })
	require.Equal(t, "1@44 put b=2", w.next())
	require.Equal(t, "-1@44", w.next())
}

// aimed waits until a requested progress waits for a watch.
func (f *face) aimed(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		f.watches.mu.Lock()
		defer f.watches.mu.Unlock()
		return len(f.watches.mu.awaited) > 0
	}, 10*time.Second, time.Millisecond)
}

// A progress is never below an event that any watch was told before: clients would resume
// below it. And waiting for one that cannot be reached holds the others up only shortly.
func TestWatchProgressIsNeverBelowAnEvent(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.create(key("a"))
	w.create(key("b"))
	w.next()
	w.next()
	f.watches.do(func() { f.watches.mu.behind["b"] = 42 })
	f.watches.put("1", "a")
	require.Equal(t, "0@43 put a=1", w.next())
	f.watches.do(func() { f.watches.mu.known = 42 }) // what the shards said before the event
	w.askProgress()
	f.aimed(t)
	f.watches.put("2", "a")
	require.Equal(t, "0@44 put a=2", w.next(), "though b is at 42 and stays there")
	f.watches.do(func() { delete(f.watches.mu.behind, "b") })
	for { // tried again by itself
		got := w.next()
		if strings.HasPrefix(got, "-1@") {
			require.Equal(t, "-1@44", got)
			break
		}
	}
	require.GreaterOrEqual(t, f.watches.mu.asked, 2)
}

// While a watch waits for the future the stream promises nothing, as in etcd.
func TestWatchProgressAndTheFuture(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.create(from("a", 45))
	require.Equal(t, "0@42 created", w.next())
	w.askProgress()
	require.Eventually(t, func() bool {
		f.watches.mu.Lock()
		defer f.watches.mu.Unlock()
		return f.watches.mu.asked == 1
	}, 10*time.Second, time.Millisecond)
	f.watches.put("1", "a")
	f.watches.put("2", "a")
	f.watches.put("3", "a")
	require.Equal(t, "0@45 put a=3", w.next())
	w.askProgress()
	require.Equal(t, "-1@45", w.next())
}

// Watches that want to be told progress are, at intervals, if they had no events.
func TestWatchProgressNotify(t *testing.T) {
	f := newFaceOf(t, Config{WatchProgressInterval: 100 * time.Millisecond})
	w := f.wire(t, t.Context())
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
	w.create(key("b"))
	w.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true, StartRevision: 100}) // the future
	// The first may be told before the last is created.
	for created, told := 0, 0; created < 3 || told < 3; {
		if got := w.next(); strings.HasSuffix(got, " created") {
			created++
		} else {
			require.Equal(t, "0@42", got)
			told++
		}
	}
}

// With clientv3, as programs watch.
func TestWatchWithClientv3(t *testing.T) {
	f := newFaceOf(t, Config{WatchProgressInterval: 100 * time.Millisecond})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	events := f.client.Watch(ctx, "a", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithPrevKV(), clientv3.WithFragment())
	created := <-events
	require.True(t, created.Created)
	require.EqualValues(t, 42, created.Header.Revision)
	f.watches.put("1", "a", "a2")
	got := <-events
	require.NoError(t, got.Err())
	require.Len(t, got.Events, 2)
	require.NotNil(t, got.Events[0].PrevKv)

	require.NoError(t, f.client.RequestProgress(ctx))
	got = <-events
	require.True(t, got.IsProgressNotify())
	require.EqualValues(t, 43, got.Header.Revision)

	notified := f.client.Watch(ctx, "b", clientv3.WithProgressNotify())
	got = <-notified
	require.True(t, got.IsProgressNotify())

	gone := f.client.Watch(ctx, "c", clientv3.WithRev(-1))
	got = <-gone
	require.Equal(t, rpctypes.ErrCompacted, got.Err())
	f.watches.do(func() { f.watches.mu.compacted = 44 })
	gone = f.client.Watch(ctx, "c", clientv3.WithRev(7))
	got = <-gone
	require.Equal(t, rpctypes.ErrCompacted, got.Err())
	require.EqualValues(t, 44, got.CompactRevision)
}

// A stream that requires a leader ends when there is none for a while; others stay.
func TestWatchRequiresALeader(t *testing.T) {
	f := newFaceOf(t, Config{LeaderTimeout: 30 * time.Millisecond})
	strict := f.wire(t, clientv3.WithRequireLeader(t.Context()))
	loose := f.wire(t, t.Context())
	for _, w := range []*wire{strict, loose} {
		w.create(key("a"))
		require.Equal(t, "0@42 created", w.next())
	}
	f.cluster.setLeaderless(true)
	_, err := strict.stream.Recv()
	require.Equal(t, rpctypes.ErrNoLeader, rpctypes.Error(err))
	f.watches.put("1", "a")
	require.Equal(t, "0@43 put a=1", loose.next())
}

// A client that does not read holds up nobody else, and costs no memory: nothing is
// polled for it. And it can be given up.
func TestWatchOfAClientThatDoesNotRead(t *testing.T) {
	f := newFaceOf(t, Config{LeaderTimeout: 30 * time.Millisecond})
	stuck := f.wire(t, clientv3.WithRequireLeader(t.Context()))
	stuck.create(key("a"))
	require.Equal(t, "0@42 created", stuck.next())
	other := f.wire(t, t.Context())
	other.create(key("b"))
	require.Equal(t, "0@42 created", other.next())
	big := strings.Repeat("v", 1<<20)
	for range 40 { // more than all buffers between have
		f.watches.put(big, "a")
		f.watches.put("1", "b")
		require.Contains(t, other.next(), "put b=1")
	}
	f.cluster.setLeaderless(true)
	require.Eventually(t, func() bool { return f.watches.opened() == 1 }, 10*time.Second, time.Millisecond, "it was not ended")
	var err error
	for err == nil {
		_, err = stuck.stream.Recv()
	}
	require.Equal(t, rpctypes.ErrNoLeader, rpctypes.Error(err))
}

// Requests without end whose answers nobody reads are not taken in.
func TestWatchRequestsAreBounded(t *testing.T) {
	f := newFace(t)
	f.watches.do(func() { f.watches.mu.unsettled = shard.ErrUnavailable })
	w := f.wire(t, t.Context())
	w.create(key("a")) // its answer has to wait, and all behind it
	for range 2 * answersMax {
		w.create(from("b", 1))
	}
	require.Eventually(t, func() bool { return f.watches.opened() == answersMax-1 }, 10*time.Second, time.Millisecond)
	f.watches.do(func() { f.watches.mu.unsettled = nil })
	for range 2*answersMax + 1 {
		require.Contains(t, w.next(), "created")
	}
}

// An error that is not the end of history ends the stream, with a code that clients come
// back on.
func TestWatchErrors(t *testing.T) {
	f := newFace(t)
	for _, c := range []struct{ err, want error }{
		{shard.ErrStopped, rpctypes.ErrGRPCStopped},
		{shard.ErrUnavailable, rpctypes.ErrGRPCNoLeader},
		{errors.New("disk is gone"), status.Error(codes.Unknown, "disk is gone")},
	} {
		f.watches.do(func() { f.watches.mu.fails = nil })
		w := f.wire(t, t.Context())
		w.create(key("a"))
		require.Equal(t, "0@42 created", w.next())
		f.watches.do(func() { f.watches.mu.fails = c.err })
		_, err := w.stream.Recv()
		requireStatus(t, c.want, err)
	}
	require.Zero(t, f.watches.opened())
}

// The end of the requests is not the end of the stream; the end of the client is.
func TestWatchEnds(t *testing.T) {
	f := newFace(t)
	w := f.wire(t, t.Context())
	w.create(key("a"))
	require.Equal(t, "0@42 created", w.next())
	require.NoError(t, w.stream.CloseSend())
	f.watches.put("1", "a")
	require.Equal(t, "0@43 put a=1", w.next())
	_, metrics := f.get(t, "/metrics")
	require.Contains(t, metrics, "\netcd_debugging_mvcc_watcher_total 1\n")
	require.Contains(t, metrics, "\netcd_debugging_mvcc_watch_stream_total 1\n")
	require.Contains(t, metrics, "\netcd_debugging_mvcc_events_total 1\n")
	w.leave()
	_, err := w.stream.Recv()
	require.NotErrorIs(t, err, io.EOF)
	require.Eventually(t, func() bool {
		_, metrics = f.get(t, "/metrics")
		return f.watches.opened() == 0 && strings.Contains(metrics, "\netcd_debugging_mvcc_watcher_total 0\n") &&
			strings.Contains(metrics, "\netcd_debugging_mvcc_watch_stream_total 0\n")
	}, 10*time.Second, time.Millisecond)
}

// Watches take turns: one with much to tell does not keep another waiting.
func TestWatchesTakeTurns(t *testing.T) {
	f := newFace(t)
	const turns = 200 // of the first watch alone
	for range turns * pollEvents {
		f.watches.put("1", "a")
	}
	f.watches.put("2", "b")
	w := f.wire(t, t.Context())
	w.create(from("a", 1))
	w.create(from("b", 1))
	for responses := 0; ; responses++ {
		require.Less(t, responses, turns/2)
		if resp, err := w.stream.Recv(); err == nil && len(resp.Events) > 0 && resp.WatchId == 1 {
			return
		}
	}
}

// More watches than fit into a turn: each gets every change, and its own ID with it.
func TestManyWatchesOfOneStream(t *testing.T) {
	const watches = 3*turnMax + 1
	f := newFace(t)
	w := f.wire(t, t.Context())
	for id := range watches {
		w.create(key("a"))
		require.Equal(t, fmt.Sprintf("%d@42 created", id), w.next())
	}
	for rev := 43; rev < 46; rev++ {
		f.watches.put("1", "a")
		got := make(map[string]bool)
		for range watches {
			got[w.next()] = true
		}
		for id := range watches {
			require.Contains(t, got, fmt.Sprintf("%d@%d put a=1", id, rev))
		}
	}
}
