package etcdapi

import (
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Watches are created by the thousand, and those of one span are sent the same events. What differs between their responses,
// header and watch ID, is some bytes in front of them; so the events are marshalled once,
// and without reflection, which was the largest part of the cost of an event.

// watchRequest is a WatchRequest that is received again and again into the same memory: a
// stream may open thousands of watches.
type watchRequest struct {
	kind   protowire.Number // of the field that is set, as follows
	create pb.WatchCreateRequest
	cancel pb.WatchCancelRequest
}

const (
	requestUnknown  protowire.Number = 0
	requestCreate   protowire.Number = 1
	requestCancel   protowire.Number = 2
	requestProgress protowire.Number = 3
)

func (r *watchRequest) unmarshal(data []byte) error {
	r.kind = requestUnknown
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		value := data[n:]
		if n = protowire.ConsumeFieldValue(field, kind, value); n < 0 {
			return protowire.ParseError(n)
		}
		data = value[n:]
		if kind != protowire.BytesType || field > requestProgress {
			continue
		}
		r.kind = field // the last one counts
		message, _ := protowire.ConsumeBytes(value)
		if err := r.read(message); err != nil {
			return err
		}
	}
	return nil
}

// read takes what is in the field of r.kind. The bytes of keys are copied.
func (r *watchRequest) read(message []byte) error {
	switch r.kind {
	case requestCreate:
		return proto.Unmarshal(message, &r.create)
	case requestCancel:
		return proto.Unmarshal(message, &r.cancel)
	default: // a request of progress is empty
		return nil
	}
}

// watchResponse is a WatchResponse that says that a watch was created, or has events: what
// proto.Marshal makes of it, to the byte.
type watchResponse struct {
	cluster, member, term uint64 // of the header
	revision              int64
	id                    int64
	created               bool
	events                mem.Buffer // from encodeEvents; nil: none
}

// frontBytesMax is what comes before the events at most: six varints with their tags, one
// of them a bool, and the header's own tag and length.
const frontBytesMax = 5*11 + 2 + 2

// marshaled implements selfMarshaled. The events are shared.
func (r *watchResponse) marshaled() mem.BufferSlice {
	front := mem.SliceBuffer(r.appendFront(make([]byte, 0, frontBytesMax)))
	if r.events == nil {
		return mem.BufferSlice{front}
	}
	return mem.BufferSlice{front, r.events}
}

// Size implements rpcfront.Appender.
func (r *watchResponse) Size() int {
	n := 2 + r.headerBytes() + uintBytes(uint64(r.id)) + uintBytes(protowire.EncodeBool(r.created))
	if r.events != nil {
		n += r.events.Len()
	}
	return n
}

// Append implements rpcfront.Appender.
func (r *watchResponse) Append(b []byte) []byte {
	b = r.appendFront(b)
	if r.events != nil {
		b = append(b, r.events.ReadOnlyData()...)
	}
	return b
}

func (r *watchResponse) headerBytes() int {
	return uintBytes(r.cluster) + uintBytes(r.member) + uintBytes(uint64(r.revision)) + uintBytes(r.term)
}

// appendFront appends what comes before the events. The length of the header is of one byte: four varints are less
// than 128.
func (r *watchResponse) appendFront(b []byte) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = append(b, byte(r.headerBytes()))
	b = appendUint(b, 1, r.cluster)
	b = appendUint(b, 2, r.member)
	b = appendUint(b, 3, uint64(r.revision))
	b = appendUint(b, 4, r.term)
	b = appendUint(b, 2, uint64(r.id))
	return appendUint(b, 3, protowire.EncodeBool(r.created))
}

// encodeEvents marshals events as they stand in a WatchResponse.
func encodeEvents(events []*mvccpb.Event) mem.SliceBuffer {
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
	bytes  mem.Buffer
}

// rememberedMax bounds what is kept in memory for nobody.
const rememberedMax = 64 << 10

func (c *encoder) encode(events []*mvccpb.Event) mem.Buffer {
	if last := c.last.Load(); last != nil && len(last.events) == len(events) && &last.events[0] == &events[0] {
		return last.bytes
	}
	bytes := mem.Buffer(encodeEvents(events))
	if bytes.Len() <= rememberedMax {
		c.last.Store(&encoded{events, bytes})
	}
	return bytes
}
