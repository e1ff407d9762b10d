package native_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// V7: what is for another node goes there, after the same checks, and nothing else does.
func TestRelays(t *testing.T) {
	h := serve(t)
	put := write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k")}))
	put.Command.Stamp = 1 << 50
	get := read(routerpb.Op_OP_RANGE, body(t, &pb.RangeRequest{Key: []byte("k")}))
	probe := read(routerpb.Op_OP_PROBE, nil)
	frame := &routerpb.Frame{Requests: []*routerpb.Request{put, get, probe}}
	exchange := func(relay uint64) {
		for _, r := range frame.Requests {
			r.Relay = relay
		}
		replies, err := h.exchange(t, frame)
		require.NoError(t, err)
		for _, r := range replies {
			require.Equal(t, routerpb.Code_OK, r.Code)
		}
	}
	for i, relay := range []uint64{0, self} {
		exchange(relay)
		require.Len(t, h.replicas.all(), 3*(i+1), "they are for this node")
		require.Empty(t, h.routed.elsewhere.all())
	}
	exchange(self + 1)
	require.Len(t, h.replicas.all(), 6)
	require.Equal(t, []shard.NodeID{self + 1, self + 1, self + 1}, h.routed.to)
	for _, r := range h.routed.elsewhere.all() {
		if r.Command != nil {
			require.True(t, proto.Equal(&shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 1, Body: put.Command.Body}, r.Command), "%v", r.Command)
		}
	}
	for relay, code := range map[uint64]routerpb.Code{0: routerpb.Code_COMPACTED, self + 1: routerpb.Code_COMPACTED} {
		stream, err := routerpb.NewNativeClient(h.conn).Subscribe(t.Context(), &routerpb.SubscribeRequest{Shard: 2, From: 1, Relay: relay}, grpc.ForceCodecV2(peer.Codec()))
		require.NoError(t, err)
		frame, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, code, frame.Error.Code)
	}
	require.Len(t, h.routed.to, 4)
}

// V4, V7: the node's router makes a lease known, whichever node found that it is not.
func TestLeasesOfRelayedWrites(t *testing.T) {
	h := serve(t)
	h.routed.elsewhere.write = func(req *router.Request, end router.Ender) {
		end.End(nil, &shard.UnregisteredLeaseError{Shard: req.Shard, Lease: 7})
	}
	put := write(shardpb.Kind_PUT, body(t, &pb.PutRequest{Key: []byte("k"), Lease: 7}))
	put.Relay = self + 1
	replies, err := h.exchange(t, &routerpb.Frame{Requests: []*routerpb.Request{put}})
	require.NoError(t, err)
	require.Equal(t, int64(1007), replies[0].Revision)
}
