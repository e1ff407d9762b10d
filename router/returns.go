package router

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Refusable reports whether a write must not begin while there is no room for answers: its own has keys and values, and so
// may be large, and nothing of what the client has asked for was applied yet.
func (r *Request) Refusable() bool { return !r.Begun && r.returns() }

// returns reports whether the answer to a write has keys and values.
func (r *Request) returns() bool {
	if r.Put != nil {
		return r.Put.PrevKv
	}
	switch r.Command.GetKind() {
	case shardpb.Kind_PUT:
		var req pb.PutRequest
		return proto.Unmarshal(r.Command.Body, &req) == nil && req.PrevKv
	case shardpb.Kind_DELETE_RANGE:
		var req pb.DeleteRangeRequest
		return proto.Unmarshal(r.Command.Body, &req) == nil && req.PrevKv
	case shardpb.Kind_TXN:
		var req pb.TxnRequest
		return proto.Unmarshal(r.Command.Body, &req) == nil && txnReturns(&req)
	}
	return false
}

func txnReturns(req *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{req.Success, req.Failure} {
		for _, op := range ops {
			returns := false
			switch op := op.Request.(type) {
			case *pb.RequestOp_RequestRange:
				returns = !op.RequestRange.GetCountOnly()
			case *pb.RequestOp_RequestPut:
				returns = op.RequestPut.GetPrevKv()
			case *pb.RequestOp_RequestDeleteRange:
				returns = op.RequestDeleteRange.GetPrevKv()
			case *pb.RequestOp_RequestTxn:
				returns = txnReturns(op.RequestTxn)
			}
			if returns {
				return true
			}
		}
	}
	return false
}
