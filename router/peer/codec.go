package peer

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec marshals messages with their generated code, if there is any, and leaves the others to
// gRPC's own codec. It is wire compatible with that.
func Codec() encoding.CodecV2 {
	return codec{others: encoding.GetCodecV2(proto.Name), large: &largeBuffers{}}
}

type codec struct {
	others encoding.CodecV2
	large  *largeBuffers
}

// pool is the source of a message's buffer.
func (c codec) pool(size int) mem.BufferPool {
	if size > smallBytesMax {
		return c.large
	}
	return mem.DefaultBufferPool()
}

type generated interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
}

// Name is empty, so that the content type is the plain one: only then does a node's front serve the
// stream itself.
func (codec) Name() string { return "" }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch f := v.(type) {
	case *outgoing:
		return f.give(), nil
	case *frame:
		return f.give(), nil
	}
	m, ok := v.(generated)
	if !ok {
		return c.others.Marshal(v)
	}
	size := m.SizeVT()
	pool := c.pool(size)
	buf := pool.Get(size)
	n, err := m.MarshalToSizedBufferVT((*buf)[:size])
	if err != nil {
		pool.Put(buf)
		return nil, fmt.Errorf("marshal %T: %w", v, err)
	}
	if n != size {
		return nil, fmt.Errorf("marshal %T: wrote %d of %d bytes", v, n, size)
	}
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*incoming); ok {
		f.take(data)
		return nil
	}
	m, ok := v.(generated)
	if !ok {
		return c.others.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(c.pool(data.Len()))
	defer buf.Free()
	return m.UnmarshalVT(buf.ReadOnlyData()) // copies what it keeps
}
