package peer

import (
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Frames are routerpb.Frame on the wire. They are encoded and decoded without its message types:
// allocating those for each request and reply, and collecting them, was half of a client's CPU.

// Fields of routerpb.Frame.
const (
	frameRequests = 1
	frameReplies  = 2
	frameRevision = 3
)

// noRequest is the ID of no request. A reply to it says that the stream is to be used for no further ones. A client that
// does not know this takes it for a reply to a call that was abandoned.
const noRequest = 0

// idBytesMax is the maximum encoded size of a request's ID, with its tag.
const idBytesMax = 11

// request is a router.Request being encoded into a frame.
type request struct {
	asked   *router.Request
	memory  [6*11 + 5*2 + 12 + 3]byte
	numbers int    // how much of memory is used: the encoded numbers, without the ID
	key     []byte // the key of a read that has nothing else
	body    []byte // any other message, encoded
	command int    // size of the encoded command
	bytes   int    // size of the encoded request without the ID
}

// prepare encodes everything that does not depend on the ID, and computes the request's size.
func (r *request) prepare() error {
	q := r.asked
	n := etcdwire.AppendUint(r.memory[:0], 2, uint64(q.Shard))
	n = etcdwire.AppendUint(n, 3, q.Epoch)
	n = etcdwire.AppendUint(n, 4, uint64(q.Op))
	n = etcdwire.AppendBool(n, 7, q.Serializable)
	n = etcdwire.AppendUint(n, 8, uint64(q.At))
	n = etcdwire.AppendUint(n, 9, uint64(q.Limit))
	n = etcdwire.AppendBool(n, 11, q.Closed)
	n = etcdwire.AppendBool(n, 12, q.Grows)
	n = etcdwire.AppendBool(n, 13, q.NoCount)
	n = etcdwire.AppendBool(n, 14, q.Promise)
	n = etcdwire.AppendUint(n, 15, uint64(q.Relay))
	n = appendWide(n, 16, uint64(q.Bytes))
	r.numbers = len(appendWide(n, 17, protowire.EncodeBool(q.Begun)))
	r.bytes = r.numbers
	switch get, ok := q.Message.(*pb.RangeRequest); {
	case q.Put != nil:
		r.command = etcdwire.UintBytes(uint64(shardpb.Kind_PUT)) + etcdwire.UintBytes(q.Epoch) + etcdwire.MessageBytes(etcdwire.PutBytes(q.Put))
		r.bytes += etcdwire.MessageBytes(r.command)
	case q.Command != nil:
		r.command = q.Command.SizeVT()
		r.bytes += etcdwire.MessageBytes(r.command)
	case ok && isGet(get):
		r.key = get.Key
		r.bytes += etcdwire.MessageBytes(etcdwire.BytesBytes(r.key))
	case q.Message != nil:
		var err error
		if r.body, err = proto.Marshal(q.Message); err != nil {
			return fmt.Errorf("encode a request to shard %d: %w", q.Shard, err)
		}
		r.bytes += etcdwire.BytesBytes(r.body)
	}
	return nil
}

// appendWide is etcdwire.AppendUint of a field with a number from 16 on, whose tag is two bytes.
func appendWide(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// isGet reports whether a read has a key and nothing else.
func isGet(r *pb.RangeRequest) bool {
	return len(r.Key) > 0 && len(r.RangeEnd) == 0 && !r.Serializable && !r.KeysOnly && !r.CountOnly && r.Limit|r.Revision == 0 &&
		r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision == 0 && r.SortOrder == 0 && r.SortTarget == 0 &&
		len(r.ProtoReflect().GetUnknown()) == 0
}

// append adds the request to a frame.
func (r *request) append(b []byte, id uint64) []byte {
	b = etcdwire.AppendPrefix(b, frameRequests, etcdwire.UintBytes(id)+r.bytes)
	b = etcdwire.AppendUint(b, 1, id)
	b = append(b, r.memory[:r.numbers]...)
	switch q := r.asked; {
	case q.Put != nil:
		b = etcdwire.AppendPrefix(b, 5, r.command)
		b = etcdwire.AppendUint(b, 1, uint64(shardpb.Kind_PUT))
		b = etcdwire.AppendUint(b, 2, q.Epoch)
		b = etcdwire.AppendPrefix(b, 4, etcdwire.PutBytes(q.Put))
		return etcdwire.AppendPut(b, q.Put)
	case q.Command != nil:
		return appendGenerated(etcdwire.AppendPrefix(b, 5, r.command), q.Command, r.command)
	case r.key != nil:
		return etcdwire.AppendBytes(etcdwire.AppendPrefix(b, 6, etcdwire.BytesBytes(r.key)), 1, r.key)
	default:
		return etcdwire.AppendBytes(b, 6, r.body)
	}
}

// appendGenerated adds a message whose encoded size is n.
func appendGenerated(b []byte, m generated, n int) []byte {
	at := len(b)
	b = slices.Grow(b, n)[:at+n]
	if _, err := m.MarshalToSizedBufferVT(b[at:]); err != nil {
		panic(fmt.Sprintf("peer: marshal %T into the %d bytes that it takes: %v", m, n, err))
	}
	return b
}

// reply is a router.Reply, or a failure, being encoded into a frame.
type reply struct {
	memory  [5 * 11]byte
	numbers int               // how much of memory is used: the encoded numbers
	read    *pb.RangeResponse // a message without a header
	body    []byte            // any other message, encoded
	refused *routerpb.Reply   // a failure, sent instead of the fields above
	bytes   int               // size of the encoded reply
}

// prepare computes the reply's size.
func (r *reply) prepare(id uint64, answer *router.Reply, err error) {
	if err == nil {
		err = r.message(answer)
	}
	if err != nil {
		r.refused = &routerpb.Reply{Id: id}
		encodeError(r.refused, err)
		r.bytes = r.refused.SizeVT()
		return
	}
	n := etcdwire.AppendUint(r.memory[:0], 1, id)
	n = etcdwire.AppendUint(n, 4, uint64(answer.Rev))
	n = etcdwire.AppendUint(n, 5, uint64(answer.Floor))
	n = etcdwire.AppendUint(n, 6, uint64(answer.Compacted))
	r.numbers = len(etcdwire.AppendUint(n, 14, answer.Index))
	r.bytes += r.numbers
}

// message computes the size of the answer's message, and encodes it now unless append will.
func (r *reply) message(a *router.Reply) (err error) {
	size := 0
	switch m := a.Message.(type) {
	case nil:
	case *pb.RangeResponse:
		r.read, size = m, etcdwire.RangeBytes(m)
		r.bytes = etcdwire.MessageBytes(size)
	case *pb.PutResponse:
		if m.PrevKv == nil {
			return nil
		}
		r.body, err = proto.Marshal(m)
	default:
		r.body, err = proto.Marshal(m)
	}
	if err != nil {
		return fmt.Errorf("encode a reply: %w", err)
	}
	if r.body != nil {
		size = len(r.body)
		r.bytes = etcdwire.BytesBytes(r.body)
	}
	if size > replyBytesMax {
		return fmt.Errorf("the answer has more than the %d MiB that nodes send each other; ask for less at a time: %w", replyBytesMax>>20, shard.ErrLargeAnswer)
	}
	return nil
}

// append adds the reply to a frame.
func (r *reply) append(b []byte) []byte {
	b = etcdwire.AppendPrefix(b, frameReplies, r.bytes)
	if r.refused != nil {
		return appendGenerated(b, r.refused, r.bytes)
	}
	b = append(b, r.memory[:r.numbers]...)
	if r.read != nil {
		return etcdwire.AppendRange(etcdwire.AppendPrefix(b, 7, etcdwire.RangeBytes(r.read)), r.read)
	}
	return etcdwire.AppendBytes(b, 7, r.body)
}

// replyBytesMax is below the maximum message size that nodes accept: a larger message would end the
// stream, and with it everything else in flight there.
const replyBytesMax = 60 << 20
