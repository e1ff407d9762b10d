package etcdwire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// GetKey returns the key of a RangeRequest that has nothing else, as most gets do; ok is false for any other request. The key
// aliases data.
func GetKey(data []byte) (key []byte, ok bool) {
	f, n := Next(data)
	return f.Bytes, n == len(data) && f.ID == 1 && len(f.Bytes) > 0
}

// RangeBytes is the number of bytes that AppendRange adds.
func RangeBytes(r *pb.RangeResponse) int {
	n := BoolBytes(r.GetMore()) + UintBytes(uint64(r.GetCount()))
	for _, kv := range r.GetKvs() {
		n += KeyValueBytes(kv)
	}
	return n
}

// AppendRange adds a response without its header, which precedes it.
func AppendRange(out []byte, r *pb.RangeResponse) []byte {
	for _, kv := range r.GetKvs() {
		out = AppendKeyValue(out, 2, kv)
	}
	out = AppendBool(out, 3, r.GetMore())
	return AppendUint(out, 4, uint64(r.GetCount()))
}

// KeyValueBytes is the number of bytes that AppendKeyValue adds.
func KeyValueBytes(kv *mvccpb.KeyValue) int {
	if kv == nil {
		return 0
	}
	return MessageBytes(insideBytes(kv))
}

// AppendKeyValue adds a key and its value as a field, nothing for nil.
func AppendKeyValue(out []byte, field protowire.Number, kv *mvccpb.KeyValue) []byte {
	if kv == nil {
		return out
	}
	out = AppendPrefix(out, field, insideBytes(kv))
	out = AppendBytes(out, 1, kv.Key)
	out = AppendUint(out, 2, uint64(kv.CreateRevision))
	out = AppendUint(out, 3, uint64(kv.ModRevision))
	out = AppendUint(out, 4, uint64(kv.Version))
	out = AppendBytes(out, 5, kv.Value)
	return AppendUint(out, 6, uint64(kv.Lease))
}

func insideBytes(kv *mvccpb.KeyValue) int {
	return BytesBytes(kv.Key) + UintBytes(uint64(kv.CreateRevision)) + UintBytes(uint64(kv.ModRevision)) +
		UintBytes(uint64(kv.Version)) + BytesBytes(kv.Value) + UintBytes(uint64(kv.Lease))
}

// one is a response with one key, in one allocation.
type one struct {
	resp   pb.RangeResponse
	header pb.ResponseHeader
	kv     mvccpb.KeyValue
	kvs    [1]*mvccpb.KeyValue
}

// DecodeRange returns the response to a read of one key, with an empty header and memory of its
// own. It returns false for any other response.
func DecodeRange(data []byte) (*pb.RangeResponse, bool) {
	a := &one{}
	a.resp.Header = &a.header
	m := Read(data)
	for m.Next() {
		switch {
		case m.ID == 2 && m.Bytes != nil && a.resp.Kvs == nil && decodeKeyValue(m.Bytes, &a.kv):
			a.kvs[0] = &a.kv
			a.resp.Kvs = a.kvs[:]
		case m.ID == 4 && m.Bytes == nil:
			a.resp.Count = int64(m.Number)
		default:
			return nil, false
		}
	}
	return &a.resp, m.Whole()
}

// decodeKeyValue decodes a key and its value, which share an allocation of their own.
func decodeKeyValue(data []byte, kv *mvccpb.KeyValue) bool {
	var key, value []byte
	m := Read(data)
	for m.Next() {
		switch {
		case m.ID == 1 && m.Bytes != nil:
			key = m.Bytes
		case m.ID == 5 && m.Bytes != nil:
			value = m.Bytes
		case m.Bytes != nil:
			return false
		case m.ID == 2:
			kv.CreateRevision = int64(m.Number)
		case m.ID == 3:
			kv.ModRevision = int64(m.Number)
		case m.ID == 4:
			kv.Version = int64(m.Number)
		case m.ID == 6:
			kv.Lease = int64(m.Number)
		default:
			return false
		}
	}
	if !m.Whole() {
		return false
	}
	own := append(append(make([]byte, 0, len(key)+len(value)), key...), value...)
	if len(key) > 0 {
		kv.Key = own[:len(key):len(key)]
	}
	if len(value) > 0 {
		kv.Value = own[len(key):]
	}
	return true
}
