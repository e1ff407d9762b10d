package etcdapi

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/shard"
)

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
