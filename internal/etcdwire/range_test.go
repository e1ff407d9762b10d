package etcdwire

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func marshal(t *testing.T, m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	require.NoError(t, err)
	return data
}

// W3
func TestAppendPut(t *testing.T) {
	for _, r := range []*pb.PutRequest{
		{}, {Key: []byte("k")}, {Key: []byte("k"), Value: make([]byte, 300)}, {Key: make([]byte, 200), Lease: 7},
		{Key: []byte("k"), Lease: -1, PrevKv: true}, {Key: []byte("k"), IgnoreValue: true, IgnoreLease: true},
	} {
		got := AppendPut([]byte("before"), r)
		require.Equal(t, "before"+string(marshal(t, r)), string(got), "%v", r)
		require.Equal(t, len(got)-len("before"), PutBytes(r), "%v", r)
	}
}

// W3, and what is read has memory of its own.
func TestRanges(t *testing.T) {
	kv := &mvccpb.KeyValue{Key: []byte("k"), Value: make([]byte, 300), CreateRevision: 1 << 40, ModRevision: 1 << 41, Version: 2, Lease: -3}
	for _, c := range []struct {
		resp    *pb.RangeResponse
		decoded bool
	}{
		{&pb.RangeResponse{}, true},
		{&pb.RangeResponse{Count: 5}, true},
		{&pb.RangeResponse{Count: 1, Kvs: []*mvccpb.KeyValue{kv}}, true},
		{&pb.RangeResponse{Count: 1, Kvs: []*mvccpb.KeyValue{{Key: []byte("k")}}}, true},
		{&pb.RangeResponse{Count: 1, Kvs: []*mvccpb.KeyValue{{}}}, true},
		{&pb.RangeResponse{Count: 3, More: true, Kvs: []*mvccpb.KeyValue{kv, kv}}, false},
	} {
		data := AppendRange([]byte("before"), c.resp)[len("before"):]
		require.Equal(t, string(marshal(t, c.resp)), string(data))
		require.Len(t, data, RangeBytes(c.resp))
		got, ok := DecodeRange(data)
		require.Equal(t, c.decoded, ok, "%v", c.resp)
		if !ok {
			continue
		}
		clear(data) // it has kept nothing of it
		require.True(t, proto.Equal(&pb.ResponseHeader{}, got.Header))
		got.Header = nil
		require.True(t, proto.Equal(c.resp, got), "%v, want %v", got, c.resp)
	}
}

// W1: what is read here is what protobuf makes of it.
func FuzzDecodeRange(f *testing.F) {
	f.Add([]byte("\x12\x05\x0a\x01k*\x00\x20\x01"))
	f.Add([]byte("\x0a\x02\x18\x07\x12\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := DecodeRange(data)
		if !ok {
			return
		}
		got.Header = nil
		want := &pb.RangeResponse{}
		require.NoError(t, proto.Unmarshal(data, want))
		require.True(t, proto.Equal(want, got), "%v, want %v", got, want)
	})
}

func TestGetKey(t *testing.T) {
	of := func(req *pb.RangeRequest) string {
		data, err := proto.Marshal(req)
		require.NoError(t, err)
		key, ok := GetKey(data)
		if !ok {
			return ""
		}
		return string(key)
	}
	key := []byte("key")
	require.Equal(t, "key", of(&pb.RangeRequest{Key: key}))
	for _, more := range []*pb.RangeRequest{
		{}, {Key: key, RangeEnd: key}, {Key: key, Limit: 1}, {Key: key, Revision: 1}, {Key: key, Serializable: true},
		{Key: key, KeysOnly: true}, {Key: key, MaxModRevision: 1},
	} {
		require.Empty(t, of(more), "%v", more)
	}
	for _, malformed := range []string{"", "\x0a", "\x0a\x04key", "\x0a\x03key\x0a", "\x08\x01", "\x0a\x03key\x0a\x03key"} {
		_, ok := GetKey([]byte(malformed))
		require.False(t, ok, "%q", malformed)
	}
}
