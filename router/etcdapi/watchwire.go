package etcdapi

import (
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
)

// Watches are created by the thousand, and those of one span receive the same events. Their
// responses differ only in header and watch ID, some bytes in front of the events; so the events
// are marshalled once, and without reflection, which was the largest part of the cost of an event.

// watchRequest is a WatchRequest that is received repeatedly into the same memory: a stream may
// open thousands of watches.
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

// read decodes the field of r.kind. The bytes of keys are copied.
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

// watchResponse is a WatchResponse that reports that a watch was created, or has events. Its
// encoding equals that of proto.Marshal.
type watchResponse struct {
	cluster, member, term uint64 // of the header
	revision              int64
	id                    int64
	created               bool
	events                mem.Buffer // from encodeEvents; nil: none
}

// frontBytesMax is the maximum size of what precedes the events: six varints with their tags, one
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
	n := 2 + r.headerBytes() + etcdwire.UintBytes(uint64(r.id)) + etcdwire.BoolBytes(r.created)
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
	return etcdwire.UintBytes(r.cluster) + etcdwire.UintBytes(r.member) + etcdwire.UintBytes(uint64(r.revision)) + etcdwire.UintBytes(r.term)
}

// appendFront appends what precedes the events. The header's length takes one byte: four varints
// are less than 128.
func (r *watchResponse) appendFront(b []byte) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = append(b, byte(r.headerBytes()))
	b = etcdwire.AppendUint(b, 1, r.cluster)
	b = etcdwire.AppendUint(b, 2, r.member)
	b = etcdwire.AppendUint(b, 3, uint64(r.revision))
	b = etcdwire.AppendUint(b, 4, r.term)
	b = etcdwire.AppendUint(b, 2, uint64(r.id))
	return etcdwire.AppendBool(b, 3, r.created)
}

// encodeEvents marshals events as fields of a WatchResponse.
func encodeEvents(events []*mvccpb.Event) mem.SliceBuffer {
	size := 0
	for _, e := range events {
		size += etcdwire.MessageBytes(eventBytes(e))
	}
	out := make([]byte, 0, size)
	for _, e := range events {
		out = etcdwire.AppendPrefix(out, 11, eventBytes(e))
		out = etcdwire.AppendUint(out, 1, uint64(e.Type))
		out = etcdwire.AppendKeyValue(out, 2, e.Kv)
		out = etcdwire.AppendKeyValue(out, 3, e.PrevKv)
	}
	return out
}

func eventBytes(e *mvccpb.Event) int {
	return etcdwire.UintBytes(uint64(e.Type)) + etcdwire.KeyValueBytes(e.Kv) + etcdwire.KeyValueBytes(e.PrevKv)
}

// encoder remembers what was marshalled last. Watches of a span that are served together, as after
// a put, reuse the events of the first of them.
type encoder struct {
	last atomic.Pointer[encoded]
}

type encoded struct {
	events []*mvccpb.Event
	bytes  mem.Buffer
}

// rememberedMax bounds the memory that is kept without a user.
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
