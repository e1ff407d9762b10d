package txn

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// HighestReadRevision is the highest explicit revision at which a range of the transaction,
// including nested ones, reads; 0 when there is none. The shard must be closed to it first.
func HighestReadRevision(r *pb.TxnRequest) int64 {
	highest := int64(0)
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			switch o := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				highest = max(highest, o.RequestRange.GetRevision())
			case *pb.RequestOp_RequestTxn:
				highest = max(highest, HighestReadRevision(o.RequestTxn))
			}
		}
	}
	return highest
}
