package etcdapi

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// selfMarshaled is a message that is its own bytes, in parts. They are shared with others:
// nobody changes them.
type selfMarshaled interface {
	marshaled() mem.BufferSlice
}

// codec is gRPC's own, but for messages that marshal themselves.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(selfMarshaled); ok {
		return m.marshaled(), nil
	}
	return c.CodecV2.Marshal(v)
}
