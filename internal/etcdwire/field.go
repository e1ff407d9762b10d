package etcdwire

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a message, which is bytes or else a number.
type field struct {
	id     protowire.Number
	bytes  []byte // shared; nil only for a number
	number uint64
}

// next reads the first field of data. n is how long it is, and negative if it is none or of another kind.
func next(data []byte) (f field, n int) {
	id, kind, n := protowire.ConsumeTag(data)
	if n < 0 {
		return field{}, n
	}
	m := -1
	f.id = id
	switch kind {
	case protowire.BytesType:
		f.bytes, m = protowire.ConsumeBytes(data[n:])
	case protowire.VarintType:
		f.number, m = protowire.ConsumeVarint(data[n:])
	}
	if m < 0 {
		return field{}, m
	}
	f.bytes = slices.Clip(f.bytes) // who appends to a key must not write into what is behind it
	return f, n + m
}
