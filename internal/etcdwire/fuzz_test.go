package etcdwire

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// W1: whatever the bytes are.
func FuzzPut(f *testing.F) {
	for _, req := range []*pb.PutRequest{
		{},
		{Key: []byte("key"), Value: []byte("value")},
		{Key: []byte("key"), Lease: -1},
		{Key: []byte("key"), Value: []byte("value"), Lease: 7, PrevKv: true},
		{Key: []byte("key"), IgnoreValue: true, IgnoreLease: true},
	} {
		seed(f, req)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		same(t, data, &pb.PutRequest{}, &pb.PutRequest{Key: []byte("of another"), Lease: 1, PrevKv: true}, UnmarshalPut)
	})
}

// W1: whatever the bytes are.
func FuzzTxn(f *testing.F) {
	for _, req := range txns() {
		seed(f, req)
	}
	f.Fuzz(func(t *testing.T, data []byte) { same(t, data, &pb.TxnRequest{}, &pb.TxnRequest{}, UnmarshalTxn) })
}

// seed adds a message and what could be wrong with it.
func seed(f *testing.F, m proto.Message) {
	data, err := proto.Marshal(m)
	require.NoError(f, err)
	for _, behind := range []string{
		"",
		string(data),       // the last of each field counts, or all do
		"\x7a\x01x",        // a field of a later version
		"\x08\x01",         // the first field, as a number
		"\x0a\x00",         // and as no bytes
		"\x12\x02\x0a\x00", // the second one with something in it
		"\x12\x06\x12\x04\x0a\x02\x0a\x00",
		"\x0a\x09x",            // longer than there is
		"\x18\xff\xff",         // cut short
		"\x20\x02",             // truth of another kind
		"\x0b\x0c",             // a group
		"\x0a\x03\x82\x04\x00", // a tag of two bytes
	} {
		f.Add(append(data[:len(data):len(data)], behind...))
	}
}

// same requires that data comes to the same with protobuf's code, in want, and with ours, in got.
func same[M proto.Message](t *testing.T, data []byte, want, got M, unmarshal func([]byte, M) error) {
	wantErr, err := proto.Unmarshal(data, want), unmarshal(data, got)
	require.Equal(t, wantErr, err)
	if err == nil {
		require.True(t, proto.Equal(want, got), "%v %v", want, got)
	}
}
