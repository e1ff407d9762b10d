package auth

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Needs checks the requests of etcd's KV service, and collects the leases whose other keys must be checked too: who
// may attach a lease may also end it, and so delete all of its keys.
type Needs struct {
	*Caller
	Leases []int64
}

// Put checks a put.
func (n *Needs) Put(req *pb.PutRequest) error {
	if err := n.Write(req.Key, nil); err != nil {
		return err
	}
	if req.Lease != 0 && !n.IsRoot() {
		n.Leases = append(n.Leases, req.Lease)
	}
	if req.PrevKv {
		return n.Read(req.Key, nil)
	}
	return nil
}

// Delete checks a delete.
func (n *Needs) Delete(req *pb.DeleteRangeRequest) error {
	if err := n.Write(req.Key, req.RangeEnd); err != nil || !req.PrevKv {
		return err
	}
	return n.Read(req.Key, req.RangeEnd)
}

// Txn checks a transaction: its compares and both branches, at every depth.
func (n *Needs) Txn(req *pb.TxnRequest) error {
	if err := n.User(); err != nil {
		return err
	}
	for _, c := range req.GetCompare() {
		if err := n.Read(c.GetKey(), c.GetRangeEnd()); err != nil {
			return err
		}
	}
	for _, branch := range [][]*pb.RequestOp{req.GetSuccess(), req.GetFailure()} {
		for _, op := range branch {
			if err := n.op(op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Needs) op(op *pb.RequestOp) error {
	switch r := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return n.Read(r.RequestRange.GetKey(), r.RequestRange.GetRangeEnd())
	case *pb.RequestOp_RequestPut:
		if r.RequestPut != nil {
			return n.Put(r.RequestPut)
		}
	case *pb.RequestOp_RequestDeleteRange:
		if r.RequestDeleteRange != nil {
			return n.Delete(r.RequestDeleteRange)
		}
	case *pb.RequestOp_RequestTxn:
		return n.Txn(r.RequestTxn)
	}
	return nil
}
