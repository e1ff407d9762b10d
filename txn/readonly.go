package txn

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// IsReadOnly reports whether the transaction may be answered without a log write.
// As in etcd, only plain ranges count as reading: a nested transaction takes the
// write path even when nothing in it writes.
func IsReadOnly(r *pb.TxnRequest) bool {
	return everyOp(r, func(rng *pb.RangeRequest) bool { return rng != nil })
}

// IsSerializable reports whether the transaction may be answered from local, possibly stale state:
// it has ranges, and every one of them is serializable. A transaction of compares alone is
// linearizable; etcd 3.7 answers it from local state.
func IsSerializable(r *pb.TxnRequest) bool {
	return len(r.GetSuccess())+len(r.GetFailure()) > 0 && everyOp(r, func(rng *pb.RangeRequest) bool { return rng.GetSerializable() })
}

// everyOp reports whether ok holds for the range of every operation; it is given
// nil for an operation of another kind.
func everyOp(r *pb.TxnRequest, ok func(*pb.RangeRequest) bool) bool {
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if !ok(op.GetRequestRange()) {
				return false
			}
		}
	}
	return true
}
