package router

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// encodePut marshals a put as protobuf does. Puts are most of what is marshalled, and
// reflection costs several times what copying does.
func encodePut(r *pb.PutRequest) []byte {
	size := 2*protowire.SizeTag(1) + protowire.SizeBytes(len(r.Key)) + protowire.SizeBytes(len(r.Value)) +
		protowire.SizeTag(3) + protowire.SizeVarint(uint64(r.Lease)) + 3*2
	b := make([]byte, 0, size)
	b = appendBytes(b, 1, r.Key)
	b = appendBytes(b, 2, r.Value)
	if r.Lease != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(r.Lease))
	}
	b = appendBool(b, 4, r.PrevKv)
	b = appendBool(b, 5, r.IgnoreValue)
	return appendBool(b, 6, r.IgnoreLease)
}

func appendBytes(b []byte, field protowire.Number, data []byte) []byte {
	if len(data) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), data)
}

func appendBool(b []byte, field protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), 1)
}
