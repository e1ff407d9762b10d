package kvwire

import "google.golang.org/protobuf/encoding/protowire"

// Fields with numbers below 16, whose tags are one byte. Zero values are left out.

// UintBytes is how many bytes AppendUint adds.
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

// BytesBytes is how many bytes AppendBytes adds.
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

// MessageBytes is how many bytes a message of n bytes takes with what stands before it.
func MessageBytes(n int) int { return 1 + protowire.SizeBytes(n) }

// AppendPrefix adds what stands before a message of n bytes.
func AppendPrefix(out []byte, field protowire.Number, n int) []byte {
	out = append(out, byte(field)<<3|byte(protowire.BytesType))
	return protowire.AppendVarint(out, uint64(n))
}

// Field is one that was read: bytes, which are those of the message and never nil, or else a number.
type Field struct {
	Number protowire.Number
	Bytes  []byte
	Uint   uint64
}

// Consume reads the first field of a message, which is not empty. n is how long it is, negative if there is none or it
// is of another kind.
func Consume(data []byte) (f Field, n int) {
	var kind protowire.Type
	if f.Number, kind, n = protowire.ConsumeTag(data); n < 0 {
		return f, n
	}
	m := -1
	switch kind {
	case protowire.BytesType:
		f.Bytes, m = protowire.ConsumeBytes(data[n:])
	case protowire.VarintType:
		f.Uint, m = protowire.ConsumeVarint(data[n:])
	}
	if m < 0 {
		return f, m
	}
	return f, n + m
}
