package peer

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Codec marshals with the generated code of the messages that have it. It is wire
// compatible with gRPC's own.
func Codec() encoding.CodecV2 { return codec{} }

type codec struct{}

type generated interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case generated:
		size := m.SizeVT()
		buf := mem.DefaultBufferPool().Get(size)
		n, err := m.MarshalToSizedBufferVT((*buf)[:size])
		if err != nil {
			mem.DefaultBufferPool().Put(buf)
			return nil, fmt.Errorf("marshal %T: %w", v, err)
		}
		if n != size {
			return nil, fmt.Errorf("marshal %T: wrote %d of %d bytes", v, n, size)
		}
		return mem.BufferSlice{mem.NewBuffer(buf, mem.DefaultBufferPool())}, nil
	case proto.Message:
		data, err := proto.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("marshal %T: %w", v, err)
		}
		return mem.BufferSlice{mem.SliceBuffer(data)}, nil
	}
	return nil, fmt.Errorf("marshal %T: not a message", v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	switch m := v.(type) {
	case generated:
		return m.UnmarshalVT(buf.ReadOnlyData()) // copies what it keeps
	case proto.Message:
		return proto.Unmarshal(buf.ReadOnlyData(), m)
	}
	return fmt.Errorf("unmarshal %T: not a message", v)
}
