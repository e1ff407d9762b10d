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
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
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
	require.Empty(t, Codec().Name(), "with a name in the content type, a node's front would leave the stream to grpc-go")
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

// encodeRequest makes a frame of a request.
func encodeRequest(t *testing.T, id uint64, req *router.Request) []byte {
	r := request{asked: req}
	require.NoError(t, r.prepare())
	data := r.append(nil, id)
	require.Len(t, data, 1+protowire.SizeBytes(r.bytes+etcdwire.UintBytes(id)))
	return data
}

// only is the only request or reply of a frame.
func only(t *testing.T, frame []byte) []byte {
	var found []byte
	_, err := parts(frame, func(_ protowire.Number, data []byte) error {
		require.Nil(t, found)
		found = data
		return nil
	})
	require.NoError(t, err)
	return found
}

// What is encoded here says on the wire what routerpb.Frame does, and is decoded to what was asked.
func TestRequestsRoundTrip(t *testing.T) {
	get := &pb.RangeRequest{Key: []byte("k")}
	for _, req := range []*router.Request{
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_WRITE, Grows: true, Command: &shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 3, Body: []byte("b")}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_WRITE, Promise: true, Command: &shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: 3, Revision: 7}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: shardpb.Kind_UPDATE, Descriptor_: &shardpb.Descriptor{ShardId: 2}, Stamp: 5, Body: []byte("b")}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_RANGE, Message: get},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_RANGE, Message: &pb.RangeRequest{}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_RANGE, Message: &pb.RangeRequest{Key: []byte("k"), Limit: 7, RangeEnd: []byte("m")}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_RANGE, Message: &pb.RangeRequest{Key: []byte("k"), MaxCreateRevision: 7}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_RANGE, Message: &pb.RangeRequest{Key: []byte("k"), SortTarget: pb.RangeRequest_VALUE}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_RANGE, Message: get, At: 9, Closed: true},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_FETCH, Message: get, Serializable: true, Limit: 5, NoCount: true},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_FETCH, Message: get, Bytes: 192 << 10},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_WRITE, Begun: true, Command: &shardpb.Command{Kind: shardpb.Kind_DELETE_RANGE, Epoch: 3, Body: []byte("b")}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_TXN, Message: &pb.TxnRequest{}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_PROBE},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_PROBE, Relay: 1<<63 + 1},
		{Shard: 1<<63 + 2, Epoch: 1<<63 + 3, Op: routerpb.Op_OP_FETCH, Message: get, At: -1, Limit: -1, Serializable: true, Closed: true, Grows: true, NoCount: true, Promise: true, Relay: 1<<63 + 1, Bytes: -1, Begun: true},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_HASH, Message: get, At: 7, Serializable: true, Closed: true},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: shardpb.Kind_LEASE_DETACH, Body: []byte("b")}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_LEASE_KEEPALIVE, Message: &routerpb.LeaseQuery{Leases: []int64{-4, 5}}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_LEASE_TTL, Message: &routerpb.LeaseQuery{Lease: 4}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_LEASE_KEYS, Message: &routerpb.LeaseQuery{Lease: 4}},
		{Shard: 2, Epoch: 3, Op: routerpb.Op_OP_LEASE_LIST, Message: &routerpb.LeaseQuery{}},
	} {
		for _, id := range []uint64{0, 1, 1<<63 + 1} {
			frame := encodeRequest(t, id, req)
			var got router.Request
			var cmd shardpb.Command
			gotID, err := decodeRequest(only(t, frame), &got, &cmd)
			require.NoError(t, err)
			require.Equal(t, id, gotID)
			sameRequest(t, req, &got)

			generated := &routerpb.Frame{}
			require.NoError(t, generated.UnmarshalVT(frame))
			whole := generated.Requests[0]
			want := &routerpb.Request{
				Id: id, Shard: uint64(req.Shard), Epoch: req.Epoch, Op: req.Op, Command: req.Command, Serializable: req.Serializable, At: int64(req.At),
				Closed: req.Closed, Limit: req.Limit, Grows: req.Grows, NoCount: req.NoCount, Promise: req.Promise, Relay: uint64(req.Relay), Bytes: req.Bytes, Begun: req.Begun,
			}
			if req.Message != nil {
				want.Body, err = proto.Marshal(req.Message)
				require.NoError(t, err)
			}
			require.True(t, proto.Equal(want, whole) || len(want.Body)+len(whole.Body) == 0, "%v, want %v", whole, want)
			again, err := generated.MarshalVT() // with the fields in their order
			require.NoError(t, err)
			got = router.Request{}
			_, err = decodeRequest(only(t, again), &got, &shardpb.Command{})
			require.NoError(t, err)
			sameRequest(t, req, &got)
		}
	}
}

func sameRequest(t *testing.T, want, got *router.Request) {
	t.Helper()
	if want.Message != nil {
		require.True(t, proto.Equal(want.Message, got.Message), "%v", got.Message)
	}
	require.True(t, proto.Equal(want.Command, got.Command), "%v", got.Command)
	w, g := *want, *got
	w.Message, w.Command, g.Message, g.Command = nil, nil, nil, nil
	require.Equal(t, w, g)
}

// A put is encoded where it is sent: what arrives is a command.
func TestPutsAreCommands(t *testing.T) {
	for _, put := range []*pb.PutRequest{{Key: []byte("k")}, {Key: []byte("k"), Value: make([]byte, 1000), Lease: -1, PrevKv: true}} {
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(put)
		require.NoError(t, err)
		for _, epoch := range []uint64{0, 1, 1 << 40} {
			frame := encodeRequest(t, 5, &router.Request{Shard: 2, Epoch: epoch, Op: routerpb.Op_OP_WRITE, Put: put, Grows: true})
			var got router.Request
			_, err := decodeRequest(only(t, frame), &got, &shardpb.Command{})
			require.NoError(t, err)
			sameRequest(t, &router.Request{
				Shard: 2, Epoch: epoch, Op: routerpb.Op_OP_WRITE, Grows: true, Command: &shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: epoch, Body: body},
			}, &got)
		}
	}
}

// What a later version says besides is passed over, in a command it is kept: whoever takes commands
// sees that there is something.
func TestUnknownFields(t *testing.T) {
	frame := etcdwire.AppendUint(encodeRequest(t, 5, probe(2)), frameRevision, 77)
	frame = append(frame, 15<<3|5, 1, 2, 3, 4)
	highest, err := parts(frame, func(protowire.Number, []byte) error { return nil })
	require.NoError(t, err)
	require.Equal(t, shard.Revision(77), highest)

	inside := protowire.AppendVarint(protowire.AppendTag(only(t, encodeRequest(t, 5, probe(2))), 99, protowire.VarintType), 7)
	inside = etcdwire.AppendBytes(inside, 14, []byte("new"))
	var got router.Request
	id, err := decodeRequest(inside, &got, &shardpb.Command{})
	require.NoError(t, err)
	require.Equal(t, uint64(5), id)
	sameRequest(t, probe(2), &got)

	var cmd shardpb.Command
	require.NoError(t, shard.DecodeCommand(etcdwire.AppendUint([]byte{1 << 3, 1}, 15, 7), &cmd))
	require.Equal(t, shardpb.Kind_PUT, cmd.Kind)
	require.NotEmpty(t, cmd.ProtoReflect().GetUnknown())
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	for _, in := range []*routerpb.Request{
		{Op: routerpb.Op_OP_UNKNOWN},
		{Op: 99},
		{Op: routerpb.Op_OP_WRITE},
		{Op: routerpb.Op_OP_RANGE, Body: []byte{0xff}},
	} {
		in.Id = 9
		data, err := in.MarshalVT()
		require.NoError(t, err)
		id, err := decodeRequest(data, &router.Request{}, &shardpb.Command{})
		require.Error(t, err, "%v", in)
		require.Equal(t, uint64(9), id, "of whom it is")
	}
	for _, garbage := range []string{"\xff", "\x08", "\x2a\x01\xff", "\x2a\xff", "\x0b"} {
		_, err := decodeRequest([]byte(garbage), &router.Request{}, &shardpb.Command{})
		require.Error(t, err, "%q", garbage)
		_, err = decodeAnswered([]byte("\x08\x01\xff"))
		require.Error(t, err)
	}
	for _, garbage := range []string{"\x0a", "\x0a\xff", "\x18", "\xff\xff\xff", "\x0a\x80\x80\x80\x80\x08", "\x78\xff"} {
		_, err := parts([]byte(garbage), func(protowire.Number, []byte) error { return nil })
		require.Error(t, err, "%q", garbage)
	}
}

// encodeReply makes a frame of a reply, or of why there is none.
func encodeReply(t *testing.T, id uint64, answer *router.Reply, err error) []byte {
	var r reply
	r.prepare(id, answer, err)
	data := r.append(nil)
	require.Len(t, data, 1+protowire.SizeBytes(r.bytes))
	return data
}

// decodeReply is what becomes of a reply where it is waited for.
func decodeReply(t *testing.T, req *router.Request, frame []byte) (*router.Reply, error) {
	a, err := decodeAnswered(only(t, frame))
	require.NoError(t, err)
	if err := a.err(); err != nil {
		return nil, err
	}
	a.reply.Message, err = decodeBody(req, a.body)
	return &a.reply, err
}

func TestRepliesRoundTrip(t *testing.T) {
	write := func(kind shardpb.Kind) *router.Request {
		return &router.Request{Op: routerpb.Op_OP_WRITE, Command: &shardpb.Command{Kind: kind}}
	}
	put := &router.Request{Op: routerpb.Op_OP_WRITE, Put: &pb.PutRequest{}}
	kvs := []*mvccpb.KeyValue{{Key: []byte("k"), Value: []byte("v")}}
	for _, c := range []struct {
		req     *router.Request
		message proto.Message
	}{
		{write(shardpb.Kind_PUT), &pb.PutResponse{PrevKv: kvs[0]}},
		{put, &pb.PutResponse{PrevKv: kvs[0]}},
		{write(shardpb.Kind_DELETE_RANGE), &pb.DeleteRangeResponse{Deleted: 3}},
		{write(shardpb.Kind_DELETE_RANGE), &pb.DeleteRangeResponse{}},
		{write(shardpb.Kind_TXN), &pb.TxnResponse{Succeeded: true}},
		{write(shardpb.Kind_CLOSE), nil},
		{&router.Request{Op: routerpb.Op_OP_RANGE}, &pb.RangeResponse{Kvs: kvs, Count: 1}},
		{&router.Request{Op: routerpb.Op_OP_RANGE}, &pb.RangeResponse{Kvs: append(kvs, kvs...), Count: 7, More: true}},
		{&router.Request{Op: routerpb.Op_OP_RANGE}, &pb.RangeResponse{}},
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
		in := &router.Reply{Rev: 5, Floor: 6, Compacted: 4, Index: 9, Message: c.message}
		frame := encodeReply(t, 1, in, nil)
		got, err := decodeReply(t, c.req, frame)
		require.NoError(t, err)
		clear(frame) // nothing of it is kept
		message := got.Message
		got.Message = nil
		require.Equal(t, &router.Reply{Rev: 5, Floor: 6, Compacted: 4, Index: 9}, got)
		if c.message == nil {
			require.Nil(t, message)
			continue
		}
		if read, ok := message.(*pb.RangeResponse); ok {
			read.Header = nil // an empty one, perhaps
		}
		require.True(t, proto.Equal(c.message, message), "%v, want %v", message, c.message)
	}
	for _, req := range []*router.Request{put, write(shardpb.Kind_PUT)} {
		got, err := decodeReply(t, req, encodeReply(t, 1, &router.Reply{Rev: 5, Message: &pb.PutResponse{}}, nil))
		require.NoError(t, err)
		require.Equal(t, &router.Reply{Rev: 5}, got, "there is nothing else to say of a put")
	}
	_, err := decodeBody(&router.Request{Op: routerpb.Op_OP_RANGE}, []byte{0xff})
	require.Error(t, err)
}

// What is encoded here is what routerpb.Frame is on the wire.
func TestRepliesOnTheWire(t *testing.T) {
	kv := &mvccpb.KeyValue{Key: []byte("k"), Value: make([]byte, 200), ModRevision: 9}
	answer := &router.Reply{Rev: 5, Floor: 6, Compacted: 4, Index: 9, Message: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv}, Count: 1}}
	body, err := proto.Marshal(answer.Message)
	require.NoError(t, err)
	got := &routerpb.Frame{}
	require.NoError(t, got.UnmarshalVT(encodeReply(t, 3, answer, nil)))
	want := &routerpb.Reply{Id: 3, Revision: 5, Floor: 6, Compacted: 4, Index: 9, Body: body}
	require.True(t, proto.Equal(want, got.Replies[0]), "%v", got)
}

// An answer too large for one message is an error to its caller and to nobody else.
func TestHugeReply(t *testing.T) {
	value := make([]byte, replyBytesMax)
	for _, m := range []proto.Message{
		&pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Value: value}}}, &pb.PutResponse{PrevKv: &mvccpb.KeyValue{Value: value}},
	} {
		frame := encodeReply(t, 3, &router.Reply{Message: m}, nil)
		require.Less(t, len(frame), 1000)
		a, err := decodeAnswered(only(t, frame))
		require.NoError(t, err)
		require.Equal(t, uint64(3), a.id)
		require.ErrorIs(t, a.err(), shard.ErrLargeAnswer)
		require.ErrorContains(t, a.err(), "ask for less")
	}
}

func TestErrorsRoundTrip(t *testing.T) {
	trip := func(err error) error {
		_, err = decodeReply(t, probe(2), encodeReply(t, 1, nil, err))
		return err
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
			_, got := decodeReply(t, probe(2), encodeReply(t, 1, nil, err))
			require.ErrorIs(t, got, shard.ErrUnknownOutcome, "%v", err)
		}
	}
}
