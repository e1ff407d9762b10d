package etcdwire

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field is one field of a message: either bytes or a number.
type Field struct {
	ID     protowire.Number
	Bytes  []byte // shared; nil only for a number
	Number uint64
}

// Message iterates over the fields of a message: Next moves to the next one, and when it returns
// false, Whole reports whether that was the end. It is a type rather than a function with a
// callback, because with one, transactions took a fifth longer.
type Message struct {
	Field
	rest   []byte
	broken int // what protowire says of what is no field, or none of a kind that is known here
}

// Read begins to read a message.
func Read(data []byte) Message { return Message{rest: data} }

// Next moves to the next field.
func (m *Message) Next() bool {
	if len(m.rest) == 0 {
		return false
	}
	var n int
	if m.Field, n = Next(m.rest); n < 0 {
		m.broken = n
		return false
	}
	m.rest = m.rest[n:]
	return true
}

// Whole reports whether the whole message was read.
func (m *Message) Whole() bool { return m.broken == 0 }

// Next reads the first field of data. n is its length, negative if the field is malformed or of
// another kind.
func Next(data []byte) (f Field, n int) {
	id, kind, n := protowire.ConsumeTag(data)
	if n < 0 {
		return Field{}, n
	}
	m := -1
	f.ID = id
	switch kind {
	case protowire.BytesType:
		f.Bytes, m = protowire.ConsumeBytes(data[n:])
	case protowire.VarintType:
		f.Number, m = protowire.ConsumeVarint(data[n:])
	}
	if m < 0 {
		return Field{}, m
	}
	f.Bytes = slices.Clip(f.Bytes) // who appends to a key must not write into what is behind it
	return f, n + m
}

// The following functions write fields with numbers below 16, whose tags are one byte. Zero values
// are omitted.

// UintBytes is the number of bytes that AppendUint adds.
func UintBytes(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// AppendUint adds a number.
func AppendUint(out []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return out
	}
	out = append(out, byte(field)<<3|byte(protowire.VarintType))
	return protowire.AppendVarint(out, v)
}

// BytesBytes is the number of bytes that AppendBytes adds.
func BytesBytes(v []byte) int {
	if len(v) == 0 {
		return 0
	}
	return MessageBytes(len(v))
}

// AppendBytes adds bytes.
func AppendBytes(out []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return out
	}
	return append(AppendPrefix(out, field, len(v)), v...)
}

// MessageBytes is the size of a message of n bytes together with its tag and length.
func MessageBytes(n int) int { return 1 + protowire.SizeBytes(n) }

// AppendPrefix adds the tag and length of a message of n bytes.
func AppendPrefix(out []byte, field protowire.Number, n int) []byte {
	out = append(out, byte(field)<<3|byte(protowire.BytesType))
	return protowire.AppendVarint(out, uint64(n))
}

// BoolBytes is the number of bytes that AppendBool adds.
func BoolBytes(v bool) int { return UintBytes(protowire.EncodeBool(v)) }

// AppendBool adds a boolean.
func AppendBool(out []byte, field protowire.Number, v bool) []byte {
	return AppendUint(out, field, protowire.EncodeBool(v))
}
