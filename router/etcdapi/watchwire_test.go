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
func TestEventsAreMarshalledAsProtobufDoes(t *testing.T) {
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
		got, err := c.Marshal(&eventsResponse{header: header, id: id, events: encodeEvents(events)})
		require.NoError(t, err)
		require.Equal(t, want, got.Materialize())
		require.LessOrEqual(t, got[0].Len(), frontBytesMax)
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
	require.Same(t, &first[0], &c.encode(list)[0])
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
