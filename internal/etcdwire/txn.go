package etcdwire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// UnmarshalTxn reads a transaction into r, which is empty.
func UnmarshalTxn(data []byte, r *pb.TxnRequest) error {
	if plainTxn(data, r) {
		return nil
	}
	return proto.Unmarshal(data, r)
}

func plainTxn(data []byte, r *pb.TxnRequest) bool {
	for len(data) > 0 {
		f, n := next(data)
		if n < 0 || f.bytes == nil {
			return false
		}
		data = data[n:]
		switch f.id {
		case 1:
			c := plainCompare(f.bytes)
			if c == nil {
				return false
			}
			r.Compare = append(r.Compare, c)
		case 2, 3:
			op := plainOp(f.bytes)
			if op == nil {
				return false
			}
			if f.id == 2 {
				r.Success = append(r.Success, op)
			} else {
				r.Failure = append(r.Failure, op)
			}
		default:
			return false
		}
	}
	return true
}

// plainCompare returns nil for a compare that is not plain.
func plainCompare(data []byte) *pb.Compare {
	c := &pb.Compare{}
	for len(data) > 0 {
		f, n := next(data)
		if n < 0 {
			return nil
		}
		data = data[n:]
		switch isBytes := f.bytes != nil; {
		case f.id == 3 && isBytes:
			c.Key = f.bytes
		case f.id == 7 && isBytes:
			c.TargetUnion = &pb.Compare_Value{Value: f.bytes}
		case f.id == 64 && isBytes:
			c.RangeEnd = f.bytes
		case isBytes:
			return nil
		case f.id == 1:
			c.Result = pb.Compare_CompareResult(f.number)
		case f.id == 2:
			c.Target = pb.Compare_CompareTarget(f.number)
		case f.id == 4:
			c.TargetUnion = &pb.Compare_Version{Version: int64(f.number)}
		case f.id == 5:
			c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: int64(f.number)}
		case f.id == 6:
			c.TargetUnion = &pb.Compare_ModRevision{ModRevision: int64(f.number)}
		case f.id == 8:
			c.TargetUnion = &pb.Compare_Lease{Lease: int64(f.number)}
		default:
			return nil
		}
	}
	return c
}

// What an operation consists of, in one piece of memory.
type (
	rangeOp struct {
		op   pb.RequestOp
		kind pb.RequestOp_RequestRange
		req  pb.RangeRequest
	}
	putOp struct {
		op   pb.RequestOp
		kind pb.RequestOp_RequestPut
		req  pb.PutRequest
	}
	deleteOp struct {
		op   pb.RequestOp
		kind pb.RequestOp_RequestDeleteRange
		req  pb.DeleteRangeRequest
	}
)

// plainOp returns nil for an operation that is not plain: also for one of several kinds, of which the last counts, or
// of one kind twice, which protobuf merges, and for a nested transaction.
func plainOp(data []byte) *pb.RequestOp {
	f, n := next(data)
	if n != len(data) || f.bytes == nil {
		return nil
	}
	switch f.id {
	case 1:
		o := &rangeOp{}
		if !plainRange(f.bytes, &o.req) {
			return nil
		}
		o.kind.RequestRange, o.op.Request = &o.req, &o.kind
		return &o.op
	case 2:
		o := &putOp{}
		if !plainPut(f.bytes, &o.req) {
			return nil
		}
		o.kind.RequestPut, o.op.Request = &o.req, &o.kind
		return &o.op
	case 3:
		o := &deleteOp{}
		if !plainDelete(f.bytes, &o.req) {
			return nil
		}
		o.kind.RequestDeleteRange, o.op.Request = &o.req, &o.kind
		return &o.op
	}
	return nil
}

// plainRange knows ranges without order and bounds of revisions.
func plainRange(data []byte, r *pb.RangeRequest) bool {
	for len(data) > 0 {
		f, n := next(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		switch isBytes := f.bytes != nil; {
		case f.id == 1 && isBytes:
			r.Key = f.bytes
		case f.id == 2 && isBytes:
			r.RangeEnd = f.bytes
		case isBytes:
			return false
		case f.id == 3:
			r.Limit = int64(f.number)
		case f.id == 4:
			r.Revision = int64(f.number)
		case f.id == 7:
			r.Serializable = protowire.DecodeBool(f.number)
		case f.id == 8:
			r.KeysOnly = protowire.DecodeBool(f.number)
		case f.id == 9:
			r.CountOnly = protowire.DecodeBool(f.number)
		default:
			return false
		}
	}
	return true
}

func plainDelete(data []byte, r *pb.DeleteRangeRequest) bool {
	for len(data) > 0 {
		f, n := next(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		switch isBytes := f.bytes != nil; {
		case f.id == 1 && isBytes:
			r.Key = f.bytes
		case f.id == 2 && isBytes:
			r.RangeEnd = f.bytes
		case f.id == 3 && !isBytes:
			r.PrevKv = protowire.DecodeBool(f.number)
		default:
			return false
		}
	}
	return true
}
