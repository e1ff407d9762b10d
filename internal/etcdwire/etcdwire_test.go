package etcdwire

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// txns are transactions with every field that there is.
func txns() []*pb.TxnRequest {
	key, value, end := []byte("key"), []byte("value"), []byte("l")
	op := func(o *pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: []*pb.RequestOp{o}} }
	put := func(p *pb.PutRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
	}
	rng := func(r *pb.RangeRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	}
	del := func(d *pb.DeleteRangeRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}}
	}
	return []*pb.TxnRequest{
		{},
		plainest(),
		{Compare: []*pb.Compare{
			{Key: key, Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 0}},
			{Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: -1}},
			{Key: key, Target: pb.Compare_VALUE, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_Value{}},
			{Key: key, Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: value}},
			{Key: key, Target: pb.Compare_LEASE, Result: pb.Compare_NOT_EQUAL, TargetUnion: &pb.Compare_Lease{Lease: 7}, RangeEnd: end},
			{},
		}},
		op(put(&pb.PutRequest{Key: key, Value: value, Lease: 7, PrevKv: true})),
		op(put(&pb.PutRequest{Key: key, IgnoreValue: true, IgnoreLease: true})),
		op(rng(&pb.RangeRequest{Key: key, RangeEnd: end, Limit: 1, Revision: 2, Serializable: true, KeysOnly: true, CountOnly: true})),
		op(rng(&pb.RangeRequest{Key: key, SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_MOD})),
		op(rng(&pb.RangeRequest{Key: key, MinModRevision: 1, MaxModRevision: 2, MinCreateRevision: 3, MaxCreateRevision: 4})),
		op(del(&pb.DeleteRangeRequest{Key: key, RangeEnd: end, PrevKv: true})),
		op(put(nil)),
		op(&pb.RequestOp{}),
		op(&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: plainest()}}),
		{Failure: []*pb.RequestOp{put(&pb.PutRequest{Key: key}), del(&pb.DeleteRangeRequest{Key: end})}},
	}
}

// plainest is what Kubernetes updates with.
func plainest() *pb.TxnRequest {
	key := []byte("key")
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 1 << 40}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: []byte("value")}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	}
}

// W2, and what is appended to a key goes elsewhere.
func TestKeysShareTheBytes(t *testing.T) {
	data, err := proto.Marshal(&pb.PutRequest{Key: []byte("key"), Value: []byte("value")})
	require.NoError(t, err)
	var put pb.PutRequest
	require.NoError(t, UnmarshalPut(data, &put))
	data[2] = 'K'
	require.Equal(t, "Key", string(put.Key))
	_ = append(put.Key, '\n')
	require.Equal(t, "value", string(put.Value))
}

// What is read by hand is so for the requests that come by the thousand.
func TestTheCommonestArePlain(t *testing.T) {
	data, err := proto.Marshal(plainest())
	require.NoError(t, err)
	require.True(t, plainTxn(data, &pb.TxnRequest{}))
	data, err = proto.Marshal(&pb.PutRequest{Key: []byte("key"), Value: []byte("value"), Lease: 7, PrevKv: true})
	require.NoError(t, err)
	require.True(t, plainPut(data, &pb.PutRequest{}))
}

func BenchmarkTxn(b *testing.B) {
	data, err := proto.Marshal(plainest())
	require.NoError(b, err)
	for name, unmarshal := range map[string]func([]byte, *pb.TxnRequest) error{
		"by hand":  UnmarshalTxn,
		"protobuf": func(data []byte, r *pb.TxnRequest) error { return proto.Unmarshal(data, r) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := unmarshal(data, &pb.TxnRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
