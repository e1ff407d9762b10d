package etcdwire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// UnmarshalPut decodes a put into r, whatever that held before.
func UnmarshalPut(data []byte, r *pb.PutRequest) error {
	r.Key, r.Value, r.Lease = nil, nil, 0
	r.PrevKv, r.IgnoreValue, r.IgnoreLease = false, false, false
	if plainPut(data, r) {
		return nil
	}
	return proto.Unmarshal(data, r)
}

func plainPut(data []byte, r *pb.PutRequest) bool {
	m := Read(data)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 1 && isBytes:
			r.Key = m.Bytes
		case m.ID == 2 && isBytes:
			r.Value = m.Bytes
		case isBytes:
			return false
		case m.ID == 3:
			r.Lease = int64(m.Number)
		case m.ID == 4:
			r.PrevKv = protowire.DecodeBool(m.Number)
		case m.ID == 5:
			r.IgnoreValue = protowire.DecodeBool(m.Number)
		case m.ID == 6:
			r.IgnoreLease = protowire.DecodeBool(m.Number)
		default:
			return false
		}
	}
	return m.Whole()
}

// PutBytes is the number of bytes that AppendPut adds.
func PutBytes(r *pb.PutRequest) int {
	return BytesBytes(r.Key) + BytesBytes(r.Value) + UintBytes(uint64(r.Lease)) +
		BoolBytes(r.PrevKv) + BoolBytes(r.IgnoreValue) + BoolBytes(r.IgnoreLease)
}

// AppendPut adds a put.
func AppendPut(out []byte, r *pb.PutRequest) []byte {
	out = AppendBytes(out, 1, r.Key)
	out = AppendBytes(out, 2, r.Value)
	out = AppendUint(out, 3, uint64(r.Lease))
	out = AppendBool(out, 4, r.PrevKv)
	out = AppendBool(out, 5, r.IgnoreValue)
	return AppendBool(out, 6, r.IgnoreLease)
}

// PutKey returns the key of an encoded PutRequest that begins with it, as those that AppendPut makes do; ok is false for any
// other. The key aliases data. Whatever else the request has may be malformed.
func PutKey(data []byte) (key []byte, ok bool) {
	f, n := Next(data)
	return f.Bytes, n > 0 && f.ID == 1 && len(f.Bytes) > 0
}
