package etcdapi

import (
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Watches of one span are sent the same events. What differs between their responses,
// header and watch ID, is some bytes in front of them; so the events are marshalled once,
// and without reflection, which was the largest part of the cost of an event.

// eventsResponse is a WatchResponse with events: what proto.Marshal makes of it, to the
// byte.
type eventsResponse struct {
	header *pb.ResponseHeader
	id     int64
	events []byte // from encodeEvents
}

// frontBytesMax is what header and watch ID take at most: five varints with their tags,
// and the header's own tag and length.
const frontBytesMax = 5*11 + 2

func (r *eventsResponse) marshaled() mem.BufferSlice {
	front := make([]byte, 0, frontBytesMax)
	front = protowire.AppendTag(front, 1, protowire.BytesType)
	front = append(front, 0)
	at := len(front)
	front = appendUint(front, 1, r.header.ClusterId)
	front = appendUint(front, 2, r.header.MemberId)
	front = appendUint(front, 3, uint64(r.header.Revision))
	front = appendUint(front, 4, r.header.RaftTerm)
	front[at-1] = byte(len(front) - at) // of one byte: four varints are less than 128
	front = appendUint(front, 2, uint64(r.id))
	return mem.BufferSlice{mem.SliceBuffer(front), mem.SliceBuffer(r.events)}
}

// encodeEvents marshals events as they stand in a WatchResponse.
func encodeEvents(events []*mvccpb.Event) []byte {
	size := 0
	for _, e := range events {
		size += 1 + protowire.SizeBytes(eventBytes(e))
	}
	out := make([]byte, 0, size)
	for _, e := range events {
		out = protowire.AppendTag(out, 11, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(eventBytes(e)))
		out = appendUint(out, 1, uint64(e.Type))
		out = appendKeyValue(out, 2, e.Kv)
		out = appendKeyValue(out, 3, e.PrevKv)
	}
	return out
}

func eventBytes(e *mvccpb.Event) int {
	return uintBytes(uint64(e.Type)) + keyValueFieldBytes(e.Kv) + keyValueFieldBytes(e.PrevKv)
}

func keyValueFieldBytes(kv *mvccpb.KeyValue) int {
	if kv == nil {
		return 0
	}
	return 1 + protowire.SizeBytes(keyValueBytes(kv))
}

func keyValueBytes(kv *mvccpb.KeyValue) int {
	return bytesBytes(kv.Key) + uintBytes(uint64(kv.CreateRevision)) + uintBytes(uint64(kv.ModRevision)) +
		uintBytes(uint64(kv.Version)) + bytesBytes(kv.Value) + uintBytes(uint64(kv.Lease))
}

func appendKeyValue(out []byte, field protowire.Number, kv *mvccpb.KeyValue) []byte {
	if kv == nil {
		return out
	}
	out = protowire.AppendTag(out, field, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(keyValueBytes(kv)))
	out = appendBytes(out, 1, kv.Key)
	out = appendUint(out, 2, uint64(kv.CreateRevision))
	out = appendUint(out, 3, uint64(kv.ModRevision))
	out = appendUint(out, 4, uint64(kv.Version))
	out = appendBytes(out, 5, kv.Value)
	return appendUint(out, 6, uint64(kv.Lease))
}

// Fields with numbers below 16, whose tags are one byte. Zero values are left out.

func uintBytes(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func appendUint(out []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return out
	}
	out = protowire.AppendTag(out, field, protowire.VarintType)
	return protowire.AppendVarint(out, v)
}

func bytesBytes(v []byte) int {
	if len(v) == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(len(v))
}

func appendBytes(out []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return out
	}
	out = protowire.AppendTag(out, field, protowire.BytesType)
	return protowire.AppendBytes(out, v)
}

// encoder remembers what was marshalled last. Watches of a span that are all served at
// once, as after a put, find the events of the first of them.
type encoder struct {
	last atomic.Pointer[encoded]
}

type encoded struct {
	events []*mvccpb.Event
	bytes  []byte
}

// rememberedMax bounds what is kept in memory for nobody.
const rememberedMax = 64 << 10

func (c *encoder) encode(events []*mvccpb.Event) []byte {
	if last := c.last.Load(); last != nil && len(last.events) == len(events) && &last.events[0] == &events[0] {
		return last.bytes
	}
	bytes := encodeEvents(events)
	if len(bytes) <= rememberedMax {
		c.last.Store(&encoded{events, bytes})
	}
	return bytes
}
