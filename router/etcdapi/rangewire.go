package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// marshalRange is what proto.Marshal makes of the response, to the byte, without reflection: reads are most of what is
// marshalled.
func marshalRange(r *pb.RangeResponse) mem.BufferSlice {
	head := headerBytes(r.Header)
	size := 1 + protowire.SizeBytes(head) + uintBytes(protowire.EncodeBool(r.More)) + uintBytes(uint64(r.Count))
	for _, kv := range r.Kvs {
		size += keyValueFieldBytes(kv)
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	out := (*buf)[:0]
	if r.Header != nil {
		out = protowire.AppendTag(out, 1, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(head))
		out = appendUint(out, 1, r.Header.ClusterId)
		out = appendUint(out, 2, r.Header.MemberId)
		out = appendUint(out, 3, uint64(r.Header.Revision))
		out = appendUint(out, 4, r.Header.RaftTerm)
	}
	for _, kv := range r.Kvs {
		out = appendKeyValue(out, 2, kv)
	}
	out = appendUint(out, 3, protowire.EncodeBool(r.More))
	out = appendUint(out, 4, uint64(r.Count))
	*buf = out
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}
}

func headerBytes(h *pb.ResponseHeader) int {
	return uintBytes(h.GetClusterId()) + uintBytes(h.GetMemberId()) + uintBytes(uint64(h.GetRevision())) + uintBytes(h.GetRaftTerm())
}
