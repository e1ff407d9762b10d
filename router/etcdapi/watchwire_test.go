package etcdapi

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// wireValues are where varints change their length.
var wireValues = []int64{0, 1, 127, 128, 1 << 14, 1<<53 + 7, math.MaxInt64, -1, math.MinInt64}

func wireKeyValue(r *rand.Rand) *mvccpb.KeyValue {
	number := func() int64 { return wireValues[r.IntN(len(wireValues))] }
	text := func() []byte {
		return []byte([]string{"", "k", strings.Repeat("x", 127), strings.Repeat("y", 128), "\x00\xff"}[r.IntN(5)])
	}
	return &mvccpb.KeyValue{Key: text(), Value: text(), CreateRevision: number(), ModRevision: number(), Version: number(), Lease: number()}
}

// What marshals itself is what proto.Marshal makes of it.
func TestResponsesAreMarshalledAsProtobufDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := codec{Config{}.withDefaults().Codec}
	for range 5000 {
		var events []*mvccpb.Event
		for range 1 + r.IntN(3) {
			e := &mvccpb.Event{Type: mvccpb.Event_EventType(r.IntN(2))}
			if r.IntN(10) > 0 {
				e.Kv = wireKeyValue(r)
			}
			if r.IntN(2) > 0 {
				e.PrevKv = wireKeyValue(r)
			}
			events = append(events, e)
		}
		number := func() int64 { return wireValues[r.IntN(len(wireValues))] }
		header := &pb.ResponseHeader{ClusterId: uint64(number()), MemberId: uint64(number()), Revision: number(), RaftTerm: uint64(number())}
		id := number()
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.WatchResponse{Header: header, WatchId: id, Events: events})
		require.NoError(t, err)
		r := &watchResponse{cluster: header.ClusterId, member: header.MemberId, term: header.RaftTerm, revision: header.Revision, id: id, events: encodeEvents(events)}
		got, err := c.Marshal(r)
		require.NoError(t, err)
		require.Equal(t, want, got.Materialize())
		require.Len(t, want, r.Size())
		require.Equal(t, want, r.Append(nil))

		want, err = proto.MarshalOptions{Deterministic: true}.Marshal(&pb.WatchResponse{Header: header, WatchId: id, Created: true})
		require.NoError(t, err)
		r.created, r.events = true, nil
		got, err = c.Marshal(r)
		require.NoError(t, err)
		require.Equal(t, want, got.Materialize())
		require.LessOrEqual(t, got.Len(), frontBytesMax)
		require.Len(t, want, r.Size())
		require.Equal(t, want, r.Append(nil))
	}
}

// What reads itself finds what proto.Unmarshal does, whatever it found before, and keeps
// nothing of the bytes it is read from.
func TestRequestsAreReadAsProtobufDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := codec{Config{}.withDefaults().Codec}
	var req watchRequest
	for range 5000 {
		number, set := wireValues[r.IntN(len(wireValues))], func() bool { return r.IntN(2) > 0 }
		want := &pb.WatchRequest{}
		switch r.IntN(4) {
		case 0:
			kv := wireKeyValue(r)
			create := &pb.WatchCreateRequest{Key: kv.Key, RangeEnd: kv.Value, StartRevision: kv.Version, WatchId: number, ProgressNotify: set(), PrevKv: set(), Fragment: set()}
			if set() {
				create.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
			}
			want.RequestUnion = &pb.WatchRequest_CreateRequest{CreateRequest: create}
		case 1:
			want.RequestUnion = &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: number}}
		case 2:
			want.RequestUnion = &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}
		}
		data, err := proto.Marshal(want)
		require.NoError(t, err)
		if set() { // what a newer client may say
			data = protowire.AppendTag(data, 9, protowire.BytesType)
			data = protowire.AppendBytes(data, []byte("more"))
		}
		require.NoError(t, c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, &req))
		clear(data)
		switch {
		case want.GetCreateRequest() != nil:
			require.Equal(t, requestCreate, req.kind)
			require.True(t, proto.Equal(want.GetCreateRequest(), &req.create))
		case want.GetCancelRequest() != nil:
			require.Equal(t, requestCancel, req.kind)
			require.True(t, proto.Equal(want.GetCancelRequest(), &req.cancel))
		case want.GetProgressRequest() != nil:
			require.Equal(t, requestProgress, req.kind)
		default:
			require.Equal(t, requestUnknown, req.kind)
		}
	}
	valid, err := proto.Marshal(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("key")}}})
	require.NoError(t, err)
	for n := 1; n < len(valid); n++ {
		require.Error(t, c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(valid[:n])}, &req))
	}
}

// The codec is gRPC's own for everything else.
func TestCodecMarshalsProtobuf(t *testing.T) {
	c := codec{Config{}.withDefaults().Codec}
	want := &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}
	data, err := c.Marshal(want)
	require.NoError(t, err)
	got := &pb.PutRequest{}
	require.NoError(t, c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data.Materialize())}, got))
	require.True(t, proto.Equal(want, got))
	require.Equal(t, "proto", c.Name())
}

// The same list is marshalled once; another one is another, also of the same events.
func TestEncoderRemembersTheLastList(t *testing.T) {
	list := []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("a")}}, {Kv: &mvccpb.KeyValue{Key: []byte("b")}}}
	var c encoder
	first := c.encode(list)
	require.Same(t, &first.ReadOnlyData()[0], &c.encode(list).ReadOnlyData()[0])
	require.Equal(t, encodeEvents(list[:1]), c.encode(list[:1]))
	require.Equal(t, encodeEvents(list[1:]), c.encode(list[1:]))
	large := []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("a"), Value: make([]byte, rememberedMax)}}}
	require.Equal(t, encodeEvents(large), c.encode(large))
	require.Len(t, c.last.Load().events, 1, "what is large is not kept")
	require.Equal(t, "b", string(c.last.Load().events[0].Kv.Key))
}

func BenchmarkEncodeEvents(b *testing.B) {
	e := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("watch/00000000/0001"), Value: make([]byte, 256), CreateRevision: 1 << 50, ModRevision: 1<<50 + 300, Version: 7}}
	events := []*mvccpb.Event{e}
	b.ReportAllocs()
	for b.Loop() {
		encodeEvents(events)
	}
}
