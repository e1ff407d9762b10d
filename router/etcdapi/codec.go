package etcdapi

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// selfMarshaled is a message that is its own bytes, in parts. They are shared with others:
// nobody changes them.
type selfMarshaled interface {
	marshaled() mem.BufferSlice
}

// codec leaves all to another but messages that marshal themselves. Whatever takes its
// place on the server would send those as empty ones.
type codec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(selfMarshaled); ok {
		return m.marshaled(), nil
	}
	return c.CodecV2.Marshal(v)
}
