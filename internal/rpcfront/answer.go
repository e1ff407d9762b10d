package rpcfront

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Response headers in HPACK, for when grpc-go has the client's table: literals that are not added
// to it (F2), with names and values uncompressed, because Huffman coding would save bytes and cost
// the client time.
const (
	// ":status: 200" of the static table, then "content-type", which is its entry 31.
	okHeaders = "\x88" + "\x0f\x10" + "\x10application/grpc"
	// New names.
	okTrailers = "\x00\x0bgrpc-status\x010" + "\x00\x0cgrpc-message\x00"
)

// The same for when the table is ours: first as they are added to it, then as its entries 62 to 64.
// The client then has them in its table instead of allocating literals.
const (
	addHeaders  = "\x88" + "\x5f" + "\x10application/grpc"
	addTrailers = "\x40\x0bgrpc-status\x010" + "\x40\x0cgrpc-message\x00"
	newHeaders  = "\x88\xbe" // before the trailers were added
	oldHeaders  = "\x88\xc0"
	oldTrailers = "\xbf\xbe"
)

// table tracks which of the above are in the client's HPACK table (F2). It is guarded by conn.mu.
type table struct {
	headers, trailers bool
	lost              bool // the table is grpc-go's
}

// short returns what to send for okHeaders or okTrailers, which must be sent next; other headers
// are unchanged.
func (t *table) short(block string) string {
	switch {
	case t.lost:
	case block == okHeaders && !t.headers:
		t.headers = true
		return addHeaders
	case block == okHeaders && !t.trailers:
		return newHeaders
	case block == okHeaders:
		return oldHeaders
	case block == okTrailers && t.headers && !t.trailers:
		t.trailers = true
		return addTrailers
	case block == okTrailers && t.trailers:
		return oldTrailers
	}
	return block
}

// okHeaderListBytes exceeds the size of either as a list of headers.
const okHeaderListBytes = 256

// refusal is a response that consists of an error only: the headers of a stream that ends with
// them, and their size as a list.
func refusal(err error) (block string, listBytes int) {
	return outcome(err, headerField{Name: ":status", Value: "200"}, headerField{Name: "content-type", Value: "application/grpc"})
}

// outcome is the headers that end a stream, preceded by first, if none were sent yet. A nil error
// means success.
func outcome(err error, first ...headerField) (block string, listBytes int) {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	fields := append(first,
		headerField{Name: "grpc-status", Value: strconv.Itoa(int(st.Code()))},
		headerField{Name: "grpc-message", Value: escape(st.Message())},
	)
	if p := st.Proto(); len(p.GetDetails()) > 0 {
		if details, err := proto.Marshal(p); err == nil { // else grpc-go leaves them out too
			fields = append(fields, headerField{Name: "grpc-status-details-bin", Value: base64.RawStdEncoding.EncodeToString(details)})
		}
	}
	var b []byte
	for _, f := range fields {
		b = appendField(b, f.Name, f.Value)
		listBytes += int(f.Size())
	}
	return string(b), listBytes
}

func appendField(b []byte, name, value string) []byte {
	return appendString(appendString(append(b, 0), name), value)
}

func appendString(b []byte, s string) []byte {
	const short = 0x7f // lengths from here on go on in further bytes, seven bits each
	if n := len(s); n < short {
		b = append(b, byte(n))
	} else {
		b = append(b, short)
		for n -= short; n >= 0x80; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		b = append(b, byte(n))
	}
	return append(b, s...)
}

// escape percent-encodes a status message as gRPC's protocol requires: everything that is not
// printable ASCII.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r >= ' ' && r <= '~' && r != '%' {
			b = append(b, byte(r))
			continue
		}
		for _, c := range utf8.AppendRune(nil, r) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}
