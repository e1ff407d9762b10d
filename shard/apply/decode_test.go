package apply

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Bodies that cannot be decoded are refused by everybody with the same words (A1); that all others come to the same
// is package etcdwire's to show.
func TestMalformedBodies(t *testing.T) {
	for _, body := range []string{"\x0a\x09x", "\x0b", "\x18\xff", "\x12\x02\x0a\x09"} {
		put := &shardpb.Command{Kind: shardpb.Kind_PUT, Body: []byte(body)}
		require.Equal(t, decode(put, &pb.PutRequest{}), decodePut(put, &pb.PutRequest{}), "%q", body)
		txn := &shardpb.Command{Kind: shardpb.Kind_TXN, Body: []byte(body)}
		require.Equal(t, decode(txn, &pb.TxnRequest{}), decodeTxn(txn, &pb.TxnRequest{}), "%q", body)
	}
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
	put := &shardpb.Command{Kind: shardpb.Kind_PUT, Epoch: 7, Stamp: 8, Revision: 9, Body: []byte("another body")}
	used, err := (&shardpb.Batch{Format: 9, NodeId: 8, Sequence: 7, Incarnation: 6, Reservation: 5, Commands: []*shardpb.Command{put, put, put}}).MarshalVT()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		var want shardpb.Batch
		wantErr := want.UnmarshalVT(data)
		var d decoder
		_, err := d.decode(used)
		require.NoError(t, err)
		got, err := d.decode(data)
		require.Equal(t, wantErr, err)
		if err == nil {
			require.True(t, proto.Equal(&want, got), "%v %v", &want, got)
		}
		d.forget()
		for i := range d.commands {
			require.Nil(t, d.commands[i].Body, "it keeps an entry alive")
		}
	})
}
