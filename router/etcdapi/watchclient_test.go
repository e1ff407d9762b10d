package etcdapi

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
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
