package peer

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// onWire is what arrives of a message after both sides' codecs.
func onWire[M proto.Message](t *testing.T, in, out M) M {
	t.Helper()
	data, err := Codec().Marshal(in)
	require.NoError(t, err)
	defer data.Free()
	require.NoError(t, Codec().Unmarshal(data, out))
	return out
}

func TestCodec(t *testing.T) {
	frame := &routerpb.Frame{HighestRevision: 7, Requests: []*routerpb.Request{{Id: 1, Body: []byte("body")}}}
	require.True(t, proto.Equal(frame, onWire(t, frame, &routerpb.Frame{})))
	// Messages without generated code, and the wire format of everyone else.
	put := &pb.PutRequest{Key: []byte("k")}
	require.True(t, proto.Equal(put, onWire(t, put, &pb.PutRequest{})))
	data, err := Codec().Marshal(frame)
	require.NoError(t, err)
	var plain routerpb.Frame
	require.NoError(t, proto.Unmarshal(data.Materialize(), &plain))
	require.True(t, proto.Equal(frame, &plain))
	data.Free()

	_, err = Codec().Marshal("text")
	require.Error(t, err)
	var text string
	require.Error(t, Codec().Unmarshal(nil, &text))
	for _, garbage := range [][]byte{{0x0a, 0xff}, {0xff, 0xff, 0xff}, {0x0a, 0x80, 0x80, 0x80, 0x80, 0x08}} {
		require.Error(t, Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(garbage)}, &routerpb.Frame{}))
	}
}

// What a message keeps is its own: gRPC takes the buffer back.
func TestCodecCopies(t *testing.T) {
	data, err := (&routerpb.Frame{Requests: []*routerpb.Request{{Body: []byte("body")}}}).MarshalVT()
	require.NoError(t, err)
	var frame routerpb.Frame
	require.NoError(t, Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, &frame))
	clear(data)
	require.Equal(t, "body", string(frame.Requests[0].Body))
}

func TestRequestsRoundTrip(t *testing.T) {
	for _, req := range []*router.Request{
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_WRITE, Grows: true, Command: &shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 3, Body: []byte("b")}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_WRITE, Promise: true, Command: &shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: 3, Revision: 7}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_RANGE, Message: &pb.RangeRequest{Key: []byte("k")}, At: 9, Closed: true},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_FETCH, Message: &pb.RangeRequest{Key: []byte("k")}, Serializable: true, Limit: 5, NoCount: true},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_TXN, Message: &pb.TxnRequest{}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_PROBE},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_HASH, Message: &pb.RangeRequest{Key: []byte("k")}, At: 7, Serializable: true, Closed: true},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: shardpb.Kind_LEASE_DETACH, Body: []byte("b")}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_LEASE_KEEPALIVE, Message: &routerpb.LeaseQuery{Leases: []int64{-4, 5}}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_LEASE_TTL, Message: &routerpb.LeaseQuery{Lease: 4}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_LEASE_KEYS, Message: &routerpb.LeaseQuery{Lease: 4}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_LEASE_LIST, Message: &routerpb.LeaseQuery{}},
	} {
		out := &routerpb.Request{}
		require.NoError(t, encodeRequest(out, req))
		got, err := decodeRequest(onWire(t, out, &routerpb.Request{}))
		require.NoError(t, err)
		if req.Message != nil {
			require.True(t, proto.Equal(req.Message, got.Message), "%v", got.Message)
		}
		require.True(t, proto.Equal(req.Command, got.Command))
		want, have := *req, *got
		want.Message, want.Command, have.Message, have.Command = nil, nil, nil, nil
		require.Equal(t, want, have)
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	for _, in := range []*routerpb.Request{
		{Op: routerpb.Op_OP_UNKNOWN},
		{Op: 99},
		{Op: routerpb.Op_OP_WRITE},
		{Op: routerpb.Op_OP_RANGE, Body: []byte{0xff}},
	} {
		_, err := decodeRequest(in)
		require.Error(t, err, "%v", in)
	}
}

func TestRepliesRoundTrip(t *testing.T) {
	write := func(kind shardpb.Kind) *router.Request {
		return &router.Request{Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: kind}}
	}
	kvs := []*mvccpb.KeyValue{{Key: []byte("k"), Value: []byte("v")}}
	for _, c := range []struct {
		req     *router.Request
		message proto.Message
	}{
		{write(shardpb.Kind_PUT), &pb.PutResponse{PrevKv: kvs[0]}},
		{write(shardpb.Kind_DELETE_RANGE), &pb.DeleteRangeResponse{Deleted: 3}},
		{write(shardpb.Kind_TXN), &pb.TxnResponse{Succeeded: true}},
		{write(shardpb.Kind_CLOSE), nil},
		{&router.Request{Op: routerpb.Op_OP_RANGE}, &pb.RangeResponse{Kvs: kvs, Count: 1}},
		{&router.Request{Op: routerpb.Op_OP_FETCH}, &pb.RangeResponse{Count: 1}},
		{&router.Request{Op: routerpb.Op_OP_TXN}, &pb.TxnResponse{}},
		{&router.Request{Op: routerpb.Op_OP_PROBE}, nil},
		{&router.Request{Op: routerpb.Op_OP_HASH}, &routerpb.HashPart{Sum: 1 << 63, Next: []byte("k")}},
		{write(shardpb.Kind_LEASE_GRANT), &shardpb.LeaseAnswer{Ttl: 3, Incarnation: 9}},
		{write(shardpb.Kind_LEASE_ATTACH), &shardpb.LeaseAnswer{Incarnation: 9}},
		{write(shardpb.Kind_LEASE_REVOKE), &shardpb.LeaseAnswer{Spans: []*shardpb.Span{{Start: []byte("a")}}, More: true, Deleted: 2}},
		{write(shardpb.Kind_LEASE_FORGET), &shardpb.LeaseAnswer{}},
		{write(shardpb.Kind_LEASE_REIGN), &shardpb.LeaseAnswer{Reign: 2}},
		{write(shardpb.Kind_LEASE_REGISTER), &shardpb.LeaseAnswer{}},
		{write(shardpb.Kind_LEASE_DETACH), &shardpb.LeaseAnswer{Deleted: 1}},
		{&router.Request{Op: routerpb.Op_OP_LEASE_KEEPALIVE}, &routerpb.LeaseStatus{Ttls: []int64{5, 0}}},
		{&router.Request{Op: routerpb.Op_OP_LEASE_TTL}, &routerpb.LeaseStatus{Ttl: -1}},
		{&router.Request{Op: routerpb.Op_OP_LEASE_KEYS}, &routerpb.LeaseStatus{Keys: [][]byte{[]byte("k")}}},
		{&router.Request{Op: routerpb.Op_OP_LEASE_LIST}, &routerpb.LeaseStatus{Leases: []*routerpb.LeaseStatus{{Lease: 4}}}},
	} {
		in := &router.Reply{Rev: 5, Floor: 6, Compacted: 4, Message: c.message}
		got, err := decodeReply(c.req, onWire(t, encodeReply(1, in, nil), &routerpb.Reply{}))
		require.NoError(t, err)
		require.Equal(t, []shard.Revision{5, 6, 4}, []shard.Revision{got.Rev, got.Floor, got.Compacted})
		if c.message == nil {
			require.Nil(t, got.Message)
		} else {
			require.True(t, proto.Equal(c.message, got.Message))
		}
	}
	_, err := decodeReply(&router.Request{Op: routerpb.Op_OP_RANGE}, &routerpb.Reply{Body: []byte{0xff}})
	require.Error(t, err)
}

// An answer too large for one message is an error to its caller and to nobody else.
func TestHugeReply(t *testing.T) {
	reply := encodeReply(3, &router.Reply{Message: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Value: make([]byte, replyBytesMax)}}}}, nil)
	require.Equal(t, uint64(3), reply.Id)
	require.Less(t, reply.SizeVT(), 1000)
	require.ErrorContains(t, decodeError(reply), "ask for less")
}

func TestErrorsRoundTrip(t *testing.T) {
	trip := func(err error) error {
		return decodeError(onWire(t, encodeReply(1, nil, err), &routerpb.Reply{}))
	}
	for _, p := range plain() {
		sent := fmt.Errorf("write key %q: %w", "k", p.err)
		got := trip(sent)
		require.ErrorIs(t, got, p.err)
		require.Equal(t, sent.Error(), got.Error())
	}
	wrong := &shard.WrongShardError{Shard: 4, Descriptors: []*shard.Descriptor{{
		ID: 4, Span: shard.Span{Start: []byte("a"), End: []byte("m")}, Epoch: 2, Generation: 3, Slot: 9,
		Replicas: []shard.Replica{{ID: 1, Node: 1}, {ID: 2, Node: 2, Learner: true}}, NextReplicaID: 3, PreferredNode: 1,
	}, {ID: 5, Span: shard.Span{Start: []byte("m"), End: []byte{}}, Epoch: 1}}}
	for _, err := range []error{
		wrong,
		&shard.NotLeaderError{Shard: 4, Leader: 2},
		&shard.NoReplicaError{Shard: 4},
		&shard.NotClosedError{Shard: 4, Floor: 77},
		&shard.UnregisteredLeaseError{Shard: 4, Lease: -9, Fence: 8},
	} {
		got := trip(fmt.Errorf("while asking: %w", err))
		require.IsType(t, err, got)
		require.Equal(t, err.Error(), got.Error())
	}
	var back *shard.WrongShardError
	require.ErrorAs(t, trip(wrong), &back)
	require.Len(t, back.Descriptors, 2)
	require.Equal(t, wrong.Descriptors[0], back.Descriptors[0])
	unregistered := &shard.UnregisteredLeaseError{Shard: 4, Lease: -9, Fence: 8}
	require.Equal(t, unregistered, trip(unregistered))

	// etcd's own refusals keep code and text.
	got := trip(fmt.Errorf("judged: %w", rpctypes.ErrGRPCDuplicateKey))
	require.Equal(t, codes.InvalidArgument, status.Code(got))
	require.Equal(t, rpctypes.ErrorDesc(rpctypes.ErrGRPCDuplicateKey), status.Convert(got).Message())

	require.ErrorIs(t, trip(context.DeadlineExceeded), shard.ErrUnavailable)
	require.EqualError(t, trip(errors.New("no idea")), "no idea")
}

// An error that is ambiguous stays so, whatever caused it.
func TestUnknownOutcomeIsNotMadeCertain(t *testing.T) {
	for _, cause := range []error{
		&shard.NotLeaderError{Shard: 2}, &shard.WrongShardError{Shard: 2}, &shard.NoReplicaError{Shard: 2}, shard.ErrUnavailable, shard.ErrStopped,
		rpctypes.ErrGRPCDuplicateKey, context.DeadlineExceeded,
	} {
		for _, err := range []error{fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, cause), fmt.Errorf("%w: %w", cause, shard.ErrUnknownOutcome)} {
			require.ErrorIs(t, decodeError(encodeReply(1, nil, err)), shard.ErrUnknownOutcome, "%v", err)
		}
	}
}
