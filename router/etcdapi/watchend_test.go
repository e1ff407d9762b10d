package etcdapi

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
)

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
