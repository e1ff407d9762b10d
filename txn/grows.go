package txn

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Grows reports whether the transaction has a put in any branch, including nested ones: such a
// transaction is refused while disk space is short.
func Grows(r *pb.TxnRequest) bool {
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if op.GetRequestPut() != nil || (op.GetRequestTxn() != nil && Grows(op.GetRequestTxn())) {
				return true
			}
		}
	}
	return false
}
