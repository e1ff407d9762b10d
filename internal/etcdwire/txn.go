package etcdwire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// UnmarshalTxn decodes a transaction into r, which is empty.
func UnmarshalTxn(data []byte, r *pb.TxnRequest) error {
	if plainTxn(data, r) {
		return nil
	}
	return proto.Unmarshal(data, r)
}

func plainTxn(data []byte, r *pb.TxnRequest) bool {
	m := Read(data)
	for m.Next() {
		if m.Bytes == nil {
			return false
		}
		switch m.ID {
		case 1:
			c := plainCompare(m.Bytes)
			if c == nil {
				return false
			}
			r.Compare = append(r.Compare, c)
		case 2, 3:
			op := plainOp(m.Bytes)
			if op == nil {
				return false
			}
			if m.ID == 2 {
				r.Success = append(r.Success, op)
			} else {
				r.Failure = append(r.Failure, op)
			}
		default:
			return false
		}
	}
	return m.Whole()
}

// plainCompare returns nil for a compare that is not plain.
func plainCompare(data []byte) *pb.Compare {
	c := &pb.Compare{}
	m := Read(data)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 3 && isBytes:
			c.Key = m.Bytes
		case m.ID == 7 && isBytes:
			c.TargetUnion = &pb.Compare_Value{Value: m.Bytes}
		case m.ID == 64 && isBytes:
			c.RangeEnd = m.Bytes
		case isBytes:
			return nil
		case m.ID == 1:
			c.Result = pb.Compare_CompareResult(m.Number)
		case m.ID == 2:
			c.Target = pb.Compare_CompareTarget(m.Number)
		case m.ID == 4:
			c.TargetUnion = &pb.Compare_Version{Version: int64(m.Number)}
		case m.ID == 5:
			c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: int64(m.Number)}
		case m.ID == 6:
			c.TargetUnion = &pb.Compare_ModRevision{ModRevision: int64(m.Number)}
		case m.ID == 8:
			c.TargetUnion = &pb.Compare_Lease{Lease: int64(m.Number)}
		default:
			return nil
		}
	}
	if !m.Whole() {
		return nil
	}
	return c
}

// An operation's parts, in one allocation.
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

// plainOp returns nil for an operation that is not plain: also for one with several kinds, of which
// the last counts, or with one kind twice, which protobuf merges, and for a nested transaction.
func plainOp(data []byte) *pb.RequestOp {
	f, n := Next(data)
	if n != len(data) || f.Bytes == nil {
		return nil
	}
	switch f.ID {
	case 1:
		o := &rangeOp{}
		if !plainRange(f.Bytes, &o.req) {
			return nil
		}
		o.kind.RequestRange, o.op.Request = &o.req, &o.kind
		return &o.op
	case 2:
		o := &putOp{}
		if !plainPut(f.Bytes, &o.req) {
			return nil
		}
		o.kind.RequestPut, o.op.Request = &o.req, &o.kind
		return &o.op
	case 3:
		o := &deleteOp{}
		if !plainDelete(f.Bytes, &o.req) {
			return nil
		}
		o.kind.RequestDeleteRange, o.op.Request = &o.req, &o.kind
		return &o.op
	}
	return nil
}

// plainRange supports ranges without sort order and revision filters.
func plainRange(data []byte, r *pb.RangeRequest) bool {
	m := Read(data)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 1 && isBytes:
			r.Key = m.Bytes
		case m.ID == 2 && isBytes:
			r.RangeEnd = m.Bytes
		case isBytes:
			return false
		case m.ID == 3:
			r.Limit = int64(m.Number)
		case m.ID == 4:
			r.Revision = int64(m.Number)
		case m.ID == 7:
			r.Serializable = protowire.DecodeBool(m.Number)
		case m.ID == 8:
			r.KeysOnly = protowire.DecodeBool(m.Number)
		case m.ID == 9:
			r.CountOnly = protowire.DecodeBool(m.Number)
		default:
			return false
		}
	}
	return m.Whole()
}

func plainDelete(data []byte, r *pb.DeleteRangeRequest) bool {
	m := Read(data)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 1 && isBytes:
			r.Key = m.Bytes
		case m.ID == 2 && isBytes:
			r.RangeEnd = m.Bytes
		case m.ID == 3 && !isBytes:
			r.PrevKv = protowire.DecodeBool(m.Number)
		default:
			return false
		}
	}
	return m.Whole()
}

// TxnKey returns the key of the first comparison of an encoded TxnRequest that begins with one; ok is false for any other. The
// key aliases data. Whatever else the request has may be malformed.
func TxnKey(data []byte) (key []byte, ok bool) {
	f, n := Next(data)
	if n < 0 || f.ID != 1 {
		return nil, false
	}
	for compare := Read(f.Bytes); compare.Next(); {
		if compare.ID == 3 && len(compare.Bytes) > 0 {
			return compare.Bytes, true
		}
	}
	return nil, false
}
