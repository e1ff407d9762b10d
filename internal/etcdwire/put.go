package etcdwire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// UnmarshalPut reads a put into r, whatever that held before.
func UnmarshalPut(data []byte, r *pb.PutRequest) error {
	r.Key, r.Value, r.Lease = nil, nil, 0
	r.PrevKv, r.IgnoreValue, r.IgnoreLease = false, false, false
	if plainPut(data, r) {
		return nil
	}
	return proto.Unmarshal(data, r)
}

func plainPut(data []byte, r *pb.PutRequest) bool {
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
			r.Value = f.bytes
		case isBytes:
			return false
		case f.id == 3:
			r.Lease = int64(f.number)
		case f.id == 4:
			r.PrevKv = protowire.DecodeBool(f.number)
		case f.id == 5:
			r.IgnoreValue = protowire.DecodeBool(f.number)
		case f.id == 6:
			r.IgnoreLease = protowire.DecodeBool(f.number)
		default:
			return false
		}
	}
	return true
}
