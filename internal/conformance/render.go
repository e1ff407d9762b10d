package conformance

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// renderer turns messages into text in the order of their field numbers. Unset
// fields are left out, as on the wire.
type renderer struct {
	// revision prints a revision that is not 0.
	revision func(int64) string
}

// question is the one-line form of a request; references print as @step±distance.
func question(s Step) string {
	r := renderer{revision: func(v int64) string {
		ref, d, ok := parseRef(v)
		switch {
		case !ok:
			return strconv.FormatInt(v, 10)
		case ref == base:
			return "base" + distance(d)
		default:
			return fmt.Sprintf("step[%d]%s", int(ref), distance(d))
		}
	}}
	name := strings.TrimSuffix(string(s.Request.ProtoReflect().Descriptor().Name()), "Request")
	if s.Stream {
		name += "Stream"
	}
	if s.Keep != "" {
		name = s.Keep + " = " + name
	}
	if s.Token != "" {
		name = "as " + s.Token + ": " + name
	}
	return strings.Join(append([]string{name}, r.fields(s.Request.ProtoReflect())...), " ")
}

func distance(d int) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%+d", d)
}

// answer is the text of a response: one line for its single fields, then one for
// each element of its lists. Revisions are printed by revision.
func answer(resp proto.Message, revision func(int64) string) string {
	r := renderer{revision: revision}
	var single, lists []string
	m := resp.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		switch {
		case !m.Has(fd):
		case fd.IsList():
			lists = append(lists, r.list(fd, m.Get(fd).List())...)
		default:
			single = append(single, r.field(fd, m.Get(fd)))
		}
	}
	return strings.Join(append([]string{strings.Join(single, " ")}, lists...), "\n")
}

func (r renderer) fields(m protoreflect.Message) []string {
	var out []string
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		switch {
		case !m.Has(fd):
		case fd.IsList():
			out = append(out, r.list(fd, m.Get(fd).List())...)
		default:
			out = append(out, r.field(fd, m.Get(fd)))
		}
	}
	return out
}

// list prints every element; equal neighbours are printed once with their number,
// which keeps the tests of limits readable.
func (r renderer) list(fd protoreflect.FieldDescriptor, l protoreflect.List) []string {
	var out []string
	for i := 0; i < l.Len(); {
		text := r.field(fd, l.Get(i))
		n := 1
		for i+n < l.Len() && r.same(fd, l.Get(i), l.Get(i+n)) {
			n++
		}
		if n > 1 {
			text += fmt.Sprintf(" x%d", n)
		}
		out = append(out, text)
		i += n
	}
	return out
}

func (r renderer) same(fd protoreflect.FieldDescriptor, a, b protoreflect.Value) bool {
	if fd.Message() == nil {
		return a.Equal(b)
	}
	return proto.Equal(a.Message().Interface(), b.Message().Interface())
}

func (r renderer) field(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	name := string(fd.Name())
	switch {
	case fd.Message() != nil:
		if h, ok := v.Message().Interface().(*pb.ResponseHeader); ok {
			return name + ":" + r.header(h)
		}
		return name + "{" + strings.Join(r.fields(v.Message()), " ") + "}"
	case fd.Kind() == protoreflect.BytesKind:
		return name + ":" + quote(v.Bytes())
	case fd.Kind() == protoreflect.EnumKind:
		if ev := fd.Enum().Values().ByNumber(v.Enum()); ev != nil {
			return name + ":" + string(ev.Name())
		}
		return name + ":" + strconv.Itoa(int(v.Enum()))
	case isRevision(fd) && v.Int() != 0:
		return name + ":" + r.revision(v.Int())
	default:
		return name + ":" + v.String()
	}
}

// header prints which of its parts are set: "full" is a response's own header,
// "bare" that of an operation inside a transaction. IDs and terms are free (C1).
func (r renderer) header(h *pb.ResponseHeader) string {
	revision := "0"
	if h.Revision != 0 {
		revision = r.revision(h.Revision)
	}
	switch {
	case h.ClusterId != 0 && h.MemberId != 0 && h.RaftTerm != 0:
		return "full" + revision
	case h.ClusterId == 0 && h.MemberId == 0 && h.RaftTerm == 0:
		return "bare" + revision
	default:
		return fmt.Sprintf("{cluster_id:%t member_id:%t raft_term:%t revision:%s}",
			h.ClusterId != 0, h.MemberId != 0, h.RaftTerm != 0, revision)
	}
}

// quoteBytesMax is the longest value printed whole.
const quoteBytesMax = 64

func quote(b []byte) string {
	if len(b) <= quoteBytesMax {
		return strconv.Quote(string(b))
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("<%d bytes, sha256 %x>", len(b), sum[:6])
}
