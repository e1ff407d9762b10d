package conformance

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Script is a sequence of requests to a store that is logically empty.
type Script struct {
	// Name is the path of the recorded answers below testdata, without ".txt".
	Name  string
	Steps []Step
}

// Step is one request.
type Step struct {
	// Why says what the step is there to show; it may be empty.
	Why string
	// Request is any request message that ask knows. Revisions in it may be references (Ref).
	Request proto.Message
	// Stream sends a RangeRequest as RangeStream.
	Stream bool
	// Keep is the name under which the token that an Authenticate gets is kept; "" forgets it.
	Keep string
	// Token is sent with the request: what is kept under this name, otherwise the text itself. "" sends none.
	Token string
}

// Ref stands for the header.revision that a step was answered with.
type Ref int

// base is the revision of the empty store that the script starts with.
const base Ref = -1

// A reference travels in the int64 revision field of a request until the request
// is sent: refTag in the top byte, then the step, then the distance.
const (
	refTag       int64 = 0x4c
	refTagShift        = 56
	refStepShift       = 16
	refZero            = 1 << 15
)

// Rev is the referred revision itself.
func (r Ref) Rev() int64 { return r.Plus(0) }

// Plus is the revision d after (or before) the referred one; see the package
// comment for which of them a script may use.
func (r Ref) Plus(d int) int64 {
	return refTag<<refTagShift | int64(r+1)<<refStepShift | int64(d+refZero)
}

// parseRef tells whether v is a reference, and to what.
func parseRef(v int64) (r Ref, distance int, ok bool) {
	if v>>refTagShift != refTag {
		return 0, 0, false
	}
	r = Ref(v>>refStepShift&(1<<(refTagShift-refStepShift)-1)) - 1
	return r, int(v&(1<<refStepShift-1)) - refZero, true
}

// isRevision tells whether the field holds a revision.
func isRevision(fd protoreflect.FieldDescriptor) bool {
	switch fd.Name() {
	case "revision", "create_revision", "mod_revision",
		"start_revision", "compact_revision",
		"min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision":
		return true
	}
	return false
}

// resolve returns a copy of req with every reference replaced by what revision
// says it is.
func resolve(req proto.Message, revision func(r Ref, distance int) int64) proto.Message {
	out := proto.Clone(req)
	references(out.ProtoReflect(), func(m protoreflect.Message, fd protoreflect.FieldDescriptor, r Ref, distance int) {
		m.Set(fd, protoreflect.ValueOfInt64(revision(r, distance)))
	})
	return out
}

// references visits every reference in m: the message it stands in, and the field.
func references(m protoreflect.Message, visit func(m protoreflect.Message, fd protoreflect.FieldDescriptor, r Ref, distance int)) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				references(v.List().Get(i).Message(), visit)
			}
		case fd.IsList():
		case fd.Message() != nil:
			references(v.Message(), visit)
		case isRevision(fd):
			if r, d, ok := parseRef(v.Int()); ok {
				visit(m, fd, r, d)
			}
		}
		return true
	})
}

// story builds a Script.
type story struct{ script Script }

func newStory(name string) *story { return &story{Script{Name: name}} }

// do appends a request and returns the reference to its answer's revision.
func (s *story) do(why string, req proto.Message) Ref { return s.as("", why, req) }

// as appends a request that is sent with a token.
func (s *story) as(token, why string, req proto.Message) Ref {
	s.script.Steps = append(s.script.Steps, Step{Why: why, Request: req, Token: token})
	return Ref(len(s.script.Steps) - 1)
}

// login appends an Authenticate whose token is kept under a name.
func (s *story) login(keep, why, user, password string) {
	s.script.Steps = append(s.script.Steps, Step{Why: why, Keep: keep, Request: &pb.AuthenticateRequest{Name: user, Password: password}})
}

// stream appends a range that is asked as RangeStream.
func (s *story) stream(why string, req *pb.RangeRequest) Ref {
	s.script.Steps = append(s.script.Steps, Step{Why: why, Request: req, Stream: true})
	return Ref(len(s.script.Steps) - 1)
}

// put appends a plain put, the usual way to set a scene.
func (s *story) put(key, value string) Ref {
	return s.do("", &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
}

// see appends a range over all keys, the usual way to show what a step left.
func (s *story) see(why string) Ref {
	return s.do(why, &pb.RangeRequest{Key: zero(), RangeEnd: zero()})
}

// zero is the byte that etcd reads as "from the first key" and "to the last key".
func zero() []byte { return []byte{0} }
