package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
)

// holds reports whether every key of etcd's (key, range_end) lies in the span. A range that can
// contain no key, such as one that ends before its key, belongs to every shard.
func holds(span shard.Span, key, rangeEnd []byte) bool {
	if len(rangeEnd) == 0 {
		return span.Contains(key)
	}
	s := shard.RequestSpan(key, rangeEnd)
	return s.Empty() || span.ContainsSpan(s)
}

// holdsTxn is holds for everything that a transaction could touch, in either branch.
func holdsTxn(span shard.Span, req *pb.TxnRequest) bool {
	for _, c := range req.GetCompare() {
		if !holds(span, c.GetKey(), c.GetRangeEnd()) {
			return false
		}
	}
	return holdsOps(span, req.GetSuccess()) && holdsOps(span, req.GetFailure())
}

func holdsOps(span shard.Span, ops []*pb.RequestOp) bool {
	for _, op := range ops {
		ok := true
		switch o := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			ok = holds(span, o.RequestRange.GetKey(), o.RequestRange.GetRangeEnd())
		case *pb.RequestOp_RequestPut:
			ok = holds(span, o.RequestPut.GetKey(), nil)
		case *pb.RequestOp_RequestDeleteRange:
			ok = holds(span, o.RequestDeleteRange.GetKey(), o.RequestDeleteRange.GetRangeEnd())
		case *pb.RequestOp_RequestTxn:
			ok = holdsTxn(span, o.RequestTxn)
		}
		if !ok {
			return false
		}
	}
	return true
}
