package rpcfront

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type headerField = hpack.HeaderField

const (
	pathHeader    = ":path"
	timeoutHeader = "grpc-timeout"
)

// known are headers seen before. They keep their meaning as long as the header table does not
// change.
type known struct {
	block   []byte // as they came
	fields  []headerField
	profile *profile
}

// knownMax is how many are remembered: methods that a client uses at a time.
const knownMax = 8

// constant reports whether a block of headers only refers to table entries, one byte each, and so
// leaves the table unchanged.
func constant(block []byte) bool {
	for _, b := range block {
		if b < 0x80 {
			return false
		}
	}
	return true
}

// headerReader decodes blocks without the checks that a matching profile has passed before, which
// are half of the cost of decoding otherwise.
type headerReader struct {
	decoder *hpack.Decoder // the framer's
	fields  []headerField  // of the last block
	id      uint32         // of its stream
	emit    func(headerField)
	shapes  shapes
}

func (h *headerReader) init() {
	h.decoder = hpack.NewDecoder(headerTableBytes, nil)
	h.emit = func(f headerField) { h.fields = append(h.fields, f) }
}

// decode returns the fields of a block, and its profile. Fields are valid until the next call, or
// as long as the stream's request is incomplete.
func (c *conn) decode(id uint32, block []byte) ([]headerField, *profile, error) {
	h := &c.headers
	if c.asked[h.id] != nil {
		h.fields = nil // it has them
	}
	h.id = id
	known := h.shapes.find(block)
	if known == nil {
		if err := h.read(block); err != nil {
			return nil, nil, err
		}
		p := c.profileOf(h.fields)
		h.shapes.learn(h.fields, p)
		return h.fields, p, nil
	}
	if err := h.read(h.shapes.check(block)); err != nil {
		return nil, nil, err
	}
	limit := h.fields[len(h.fields)-1]
	if h.shapes.literal.from < h.shapes.oldest.from {
		limit = h.fields[0]
	}
	h.fields = append(h.fields[:0], known.fields...)
	h.fields[known.limit] = limit
	if limit.Name != timeoutHeader {
		return h.fields, c.profileOf(h.fields), nil
	}
	return h.fields, known.profile, nil
}

// read decodes a block, or part of one.
func (h *headerReader) read(block []byte) error {
	h.fields = h.fields[:0]
	h.decoder.SetEmitEnabled(true)
	h.decoder.SetEmitFunc(h.emit)
	if _, err := h.decoder.Write(block); err != nil {
		return err
	}
	return h.decoder.Close()
}

func listBytes(fields []headerField) (n int) {
	for _, f := range fields {
		n += int(f.Size())
	}
	return n
}

// errTruncated is the error for a list of headers that is too long, as in grpc-go.
func errTruncated(id uint32) error {
	return http2.StreamError{StreamID: id, Code: http2.ErrCodeFrameSize}
}

// wellFormed reports whether HTTP/2 allows the fields in this order. If not, grpc-go must refuse
// them.
func wellFormed(fields []headerField) bool {
	regular := false
	for i, f := range fields {
		switch {
		case !strings.HasPrefix(f.Name, ":"):
			regular = true
			if !httpguts.ValidHeaderFieldName(f.Name) || strings.ToLower(f.Name) != f.Name {
				return false
			}
		case regular, slices.ContainsFunc(fields[:i], func(o headerField) bool { return o.Name == f.Name }):
			return false
		}
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return false
		}
	}
	return true
}

// profile is what calls with the same headers have in common, whatever their deadlines. It is made
// once per method, as long as a client does not change its metadata.
type profile struct {
	fields []headerField // without the deadline
	method *method
	md     metadata.MD
	ctx    context.Context // with md
}

// profileOf returns the profile of a request, nil when grpc-go must serve it.
func (c *conn) profileOf(fields []headerField) *profile {
	if c.recent != nil && c.recent.matches(fields) {
		return c.recent
	}
	path := ""
	for _, f := range fields {
		if f.Name == pathHeader {
			path = f.Value
		}
	}
	p := c.profiles[path]
	if p == nil || !p.matches(fields) {
		if p = c.newProfile(fields); p == nil {
			return nil
		}
		c.profiles[path] = p
	}
	c.recent = p
	return p
}

func (p *profile) matches(fields []headerField) bool {
	i := 0
	for _, f := range fields {
		if f.Name == timeoutHeader && (i == len(p.fields) || p.fields[i].Name[0] != ':') {
			continue
		}
		if i == len(p.fields) || p.fields[i].Name != f.Name || p.fields[i].Value != f.Value {
			return false
		}
		i++
	}
	return i == len(p.fields)
}

// newProfile returns nil when the headers contain anything that gRPC could refuse, or that changes
// the response (F1).
func (c *conn) newProfile(fields []headerField) *profile {
	if !wellFormed(fields) {
		return nil
	}
	p := &profile{fields: make([]headerField, 0, len(fields))}
	md := make(metadata.MD, len(fields))
	for _, f := range fields {
		switch {
		case f.Name == timeoutHeader:
			continue
		case f.Name == pathHeader:
			p.method = c.server.methods[f.Value]
		case f.Name == ":scheme", f.Name == ":method" && f.Value == "POST", f.Name == "te":
		case f.Name == "content-type" && f.Value == "application/grpc" && md[f.Name] == nil,
			f.Name == ":authority" && md[f.Name] == nil,
			f.Name == "grpc-accept-encoding":
			md[f.Name] = append(md[f.Name], f.Value)
		case f.Name == "host", f.Name == "connection", f.Name == "content-type",
			strings.HasPrefix(f.Name, ":"), strings.HasPrefix(f.Name, "grpc-"), strings.HasSuffix(f.Name, "-bin"):
			return nil
		default:
			md[f.Name] = append(md[f.Name], f.Value)
		}
		p.fields = append(p.fields, f)
	}
	if p.method == nil || md["content-type"] == nil || md[":authority"] == nil {
		return nil
	}
	ctx := grpc.NewContextWithServerTransportStream(c.values, transportStream{p.method.path})
	p.md, p.ctx = md, metadata.NewIncomingContext(ctx, md)
	return p
}

// transportStream tells a handler which method it serves. Metadata in responses would make them
// differ.
type transportStream struct{ path string }

func (s transportStream) Method() string             { return s.path }
func (transportStream) SetHeader(metadata.MD) error  { return errMetadata }
func (transportStream) SendHeader(metadata.MD) error { return errMetadata }
func (transportStream) SetTrailer(metadata.MD) error { return errMetadata }

var errMetadata = status.Error(codes.Internal, "the answers of this server have no metadata")

// timeLimit returns a call's timeout, 0 for none, and false when gRPC would refuse the headers, or
// the timeout is over.
func timeLimit(fields []headerField) (limit time.Duration, ok bool) {
	for _, f := range fields {
		if f.Name != timeoutHeader {
			continue
		}
		if limit != 0 {
			return 0, false
		}
		if limit = parseTimeout(f.Value); limit <= 0 {
			return 0, false
		}
	}
	return limit, true
}

// parseTimeout returns 0 for a malformed timeout.
func parseTimeout(s string) time.Duration {
	const digitsMax = 8
	if len(s) < 2 || len(s) > digitsMax+1 {
		return 0
	}
	var n time.Duration
	for _, digit := range []byte(s[:len(s)-1]) {
		if digit < '0' || digit > '9' {
			return 0
		}
		n = 10*n + time.Duration(digit-'0')
	}
	unit := timeoutUnit(s[len(s)-1])
	if unit == 0 || n > math.MaxInt64/unit {
		return 0
	}
	return n * unit
}

func timeoutUnit(c byte) time.Duration {
	switch c {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}
