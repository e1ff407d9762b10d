package apply

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// FuzzDecodePut: reading a put by hand and with the library comes to the same, whatever
// the bytes are, or replicas of different builds would differ (A1).
func FuzzDecodePut(f *testing.F) {
	for _, req := range []*pb.PutRequest{
		{},
		{Key: []byte("key"), Value: []byte("value")},
		{Key: []byte("key"), Lease: -1},
		{Key: []byte("key"), Value: []byte("value"), Lease: 7, PrevKv: true},
		{Key: []byte("key"), IgnoreValue: true, IgnoreLease: true},
	} {
		body, err := proto.Marshal(req)
		require.NoError(f, err)
		f.Add(body)
		f.Add(append(body, body...))          // the last of each field counts
		f.Add(append(body, 0x7a, 1, 'x'))     // a field of a later version
		f.Add(append(body, 0x08, 1))          // the key's number, as a number
		f.Add(append(body, 0x0a, 9, 'x'))     // longer than there is
		f.Add(append(body, 0x18, 0xff, 0xff)) // cut short
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var want, got pb.PutRequest
		cmd := &shardpb.Command{Kind: shardpb.Kind_PUT, Body: body}
		wantErr, err := decode(cmd, &want), decodePut(cmd, &got)
		require.Equal(t, wantErr, err)
		if err == nil {
			require.True(t, proto.Equal(&want, &got), "%v %v", &want, &got)
		}
	})
}

// FuzzDecodeBatch: so does reading an entry.
func FuzzDecodeBatch(f *testing.F) {
	for _, b := range []*shardpb.Batch{
		{},
		{Format: 1, NodeId: 2, Sequence: 3, Incarnation: 4, Reservation: 5, Commands: []*shardpb.Command{
			{Kind: shardpb.Kind_PUT, Epoch: 1, Stamp: 2, Body: []byte("body")},
			{Kind: shardpb.Kind_CLOSE, Revision: 5}, {Kind: shardpb.Kind_CLOSE, Reserve: 6},
		}},
		{Format: 1, Commands: []*shardpb.Command{{}, {Kind: shardpb.Kind_INIT, Descriptor_: &shardpb.Descriptor{ShardId: 1}}}},
	} {
		data, err := b.MarshalVT()
		require.NoError(f, err)
		f.Add(data)
		f.Add(append(data, data...))
		f.Add(append(data, 0x7a, 1, 'x'))                        // a field of a later version
		f.Add(append(data, 0x0a, 0))                             // the format's number, as bytes
		f.Add(append(data, 0x22, 3, 0x7a, 1, 'x'))               // a command of a later version
		f.Add(append(data, 0x22, 2, 0x22, 0))                    // one with an empty body
		f.Add(append(data, 0x22, 9, 'x'))                        // longer than there is
		f.Add(append(data, 0x22, 3, 0x08, 0xff, 0xff))           // cut short
		f.Add(append(data, 0x22, 6, 8, 255, 255, 255, 255, 127)) // a kind with too many bits
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want shardpb.Batch
		wantErr := want.UnmarshalVT(data)
		got, err := decodeBatch(data)
		require.Equal(t, wantErr, err)
		if err == nil {
			require.True(t, proto.Equal(&want, got), "%v %v", &want, got)
		}
	})
}
