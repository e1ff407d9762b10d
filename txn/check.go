package txn

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// DefaultMaxOps is etcd's default of --max-txn-ops.
const DefaultMaxOps = 128

// CheckPut refuses a put that etcd refuses without looking at the store.
func CheckPut(r *pb.PutRequest) error {
	switch {
	case len(r.GetKey()) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.GetIgnoreValue() && len(r.GetValue()) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.GetIgnoreLease() && r.GetLease() != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

// CheckRange refuses a range that etcd refuses without looking at the store. An end before the key
// is allowed: such a range is empty.
func CheckRange(r *pb.RangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if _, known := pb.RangeRequest_SortOrder_name[int32(r.GetSortOrder())]; !known {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, known := pb.RangeRequest_SortTarget_name[int32(r.GetSortTarget())]; !known {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

// CheckDeleteRange refuses a delete that etcd refuses without looking at the store.
func CheckDeleteRange(r *pb.DeleteRangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

// CheckTxn refuses a transaction that etcd refuses without looking at the store.
// maxOps limits the longest of the three lists of a level; a nested transaction
// may use what the levels around it have left. Every operation is checked before
// overlaps are looked for, so that a request over the limit costs nothing more.
func CheckTxn(r *pb.TxnRequest, maxOps int) error {
	if err := checkLevel(r, maxOps); err != nil {
		return err
	}
	if err := checkOverlaps(r.GetSuccess()); err != nil {
		return err
	}
	return checkOverlaps(r.GetFailure())
}

func checkLevel(r *pb.TxnRequest, budget int) error {
	budget -= max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if budget < 0 {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.GetCompare() {
		if len(c.GetKey()) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if err := checkOp(op, budget); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, budget int) error {
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return CheckRange(o.RequestRange)
	case *pb.RequestOp_RequestPut:
		return CheckPut(o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return CheckDeleteRange(o.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkLevel(o.RequestTxn, budget)
	default:
		// An operation without a kind. The error is odd, but it is etcd's.
		return rpctypes.ErrGRPCKeyNotFound
	}
}
