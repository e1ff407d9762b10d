package etcdapi

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// selfMarshaled is a message that provides its own encoding, in parts. They are shared and must not
// be modified.
type selfMarshaled interface {
	marshaled() mem.BufferSlice
}

// selfUnmarshaled is a message that decodes itself. It keeps none of the bytes.
type selfUnmarshaled interface {
	unmarshal(data []byte) error
}

// codec wraps another one and handles messages that marshal or unmarshal themselves, and the most
// frequent responses. Any other codec on the server would fail with those.
type codec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(selfMarshaled); ok {
		return m.marshaled(), nil
	}
	if h, ok := v.(*heldAnswer); ok {
		return h.marshal(c)
	}
	if a := appenderOf(v); a != nil {
		return marshaledAnswer(a), nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(selfUnmarshaled)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return m.unmarshal(buf.ReadOnlyData())
}
