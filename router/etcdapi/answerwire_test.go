package etcdapi

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// Answers that are marshalled by hand are what protobuf makes of them, appended or by themselves.
func TestAnswers(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	number := func() int64 { return []int64{0, 1, 127, 128, 1 << 40, math.MaxInt64, -1}[r.IntN(7)] }
	some := func() []byte { return bytes.Repeat([]byte{'x'}, []int{0, 1, 127, 128, 70_000}[r.IntN(5)]) }
	header := func() *pb.ResponseHeader {
		if r.IntN(10) == 0 {
			return nil
		}
		return &pb.ResponseHeader{ClusterId: uint64(number()), MemberId: uint64(number()), Revision: number(), RaftTerm: uint64(number())}
	}
	keyValue := func() *mvccpb.KeyValue {
		return &mvccpb.KeyValue{
			Key: some(), Value: some(), CreateRevision: number(), ModRevision: number(), Version: number(), Lease: number(),
		}
	}
	ranged := func() *pb.RangeResponse {
		resp := &pb.RangeResponse{Header: header(), More: r.IntN(2) == 0, Count: number()}
		for range r.IntN(3) {
			resp.Kvs = append(resp.Kvs, keyValue())
		}
		return resp
	}
	put := func() *pb.PutResponse {
		resp := &pb.PutResponse{Header: header()}
		if r.IntN(2) == 0 {
			resp.PrevKv = keyValue()
		}
		return resp
	}
	for range 2000 {
		txn := &pb.TxnResponse{Header: header(), Succeeded: r.IntN(2) == 0}
		for range r.IntN(4) {
			op := &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: put()}}
			if r.IntN(2) == 0 {
				op.Response = &pb.ResponseOp_ResponseRange{ResponseRange: ranged()}
			}
			txn.Responses = append(txn.Responses, op)
		}
		for _, resp := range []proto.Message{ranged(), put(), txn} {
			want, err := proto.Marshal(resp)
			require.NoError(t, err)
			data, err := codec{}.Marshal(resp)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, data.Materialize()), "seed %d: %v", seed, resp)
			data.Free()
			a := appenderOf(resp)
			require.Equal(t, len(want), a.Size(), "seed %d: %v", seed, resp)
			require.True(t, bytes.Equal(append([]byte("front"), want...), a.Append([]byte("front"))), "seed %d: %v", seed, resp)
		}
	}
}

// Those with anything else in them are protobuf's.
func TestAnswersOfOtherKinds(t *testing.T) {
	for _, resp := range []proto.Message{
		&pb.DeleteRangeResponse{},
		&pb.TxnResponse{Responses: []*pb.ResponseOp{{}}},
		&pb.TxnResponse{Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: &pb.TxnResponse{}}}}},
		&pb.TxnResponse{Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{Deleted: 1}}}}},
	} {
		require.Nil(t, appenderOf(resp), "%v", resp)
	}
}
