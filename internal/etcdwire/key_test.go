package etcdwire

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// A key is found in whatever clients and nodes encode, and nothing else is taken for one.
func TestKeysOfWrites(t *testing.T) {
	compare := &pb.Compare{Result: pb.Compare_LESS, Target: pb.Compare_MOD, Key: []byte("key"), TargetUnion: &pb.Compare_ModRevision{ModRevision: 5}}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("other")}}}
	for _, c := range []struct {
		req  proto.Message
		of   func([]byte) ([]byte, bool)
		want string
	}{
		{&pb.PutRequest{Key: []byte("key"), Value: []byte("value"), Lease: 3, PrevKv: true}, PutKey, "key"},
		{&pb.PutRequest{Value: []byte("value")}, PutKey, ""},
		{&pb.PutRequest{}, PutKey, ""},
		{&pb.TxnRequest{Compare: []*pb.Compare{compare, {Key: []byte("second")}}, Success: []*pb.RequestOp{put}}, TxnKey, "key"},
		{&pb.TxnRequest{Compare: []*pb.Compare{{}}, Success: []*pb.RequestOp{put}}, TxnKey, ""},
		{&pb.TxnRequest{Success: []*pb.RequestOp{put}}, TxnKey, ""},
		{&pb.TxnRequest{}, TxnKey, ""},
	} {
		data, err := proto.Marshal(c.req)
		require.NoError(t, err)
		key, ok := c.of(data)
		require.Equal(t, c.want != "", ok, "%v", c.req)
		if ok {
			require.Equal(t, c.want, string(key), "%v", c.req)
		}
	}
	for _, malformed := range []string{"", "\x0a", "\x0a\x04key", "\x08\x01"} {
		_, put := PutKey([]byte(malformed))
		_, txn := TxnKey([]byte(malformed))
		require.False(t, put || txn, "%q", malformed)
	}
	_, ok := TxnKey([]byte("\x0a\x02\x1a\x04")) // a comparison that ends within its key
	require.False(t, ok)
}
