package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/internal/rpcfront"
)

// The most frequent responses are marshalled by hand, byte for byte as by proto.Marshal, without
// reflection.

// appenderOf returns the hand-written encoding of a response, nil if it has none.
func appenderOf(resp any) rpcfront.Appender {
	switch r := resp.(type) {
	case *pb.RangeResponse:
		return rangeAnswer{r}
	case *pb.PutResponse:
		return putAnswer{r}
	case *pb.TxnResponse:
		if a := (txnAnswer{r}); a.plain() {
			return a
		}
	}
	return nil
}

// marshaledAnswer encodes an answer that is not sent at once.
func marshaledAnswer(a rpcfront.Appender) mem.BufferSlice {
	pool := mem.DefaultBufferPool()
	buf := pool.Get(a.Size())
	*buf = a.Append((*buf)[:0])
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}
}

type rangeAnswer struct{ r *pb.RangeResponse }

// Size implements rpcfront.Appender.
func (a rangeAnswer) Size() int { return headerFieldBytes(a.r.GetHeader()) + etcdwire.RangeBytes(a.r) }

// Append implements rpcfront.Appender.
func (a rangeAnswer) Append(b []byte) []byte {
	return etcdwire.AppendRange(appendHeader(b, a.r.GetHeader()), a.r)
}

type putAnswer struct{ r *pb.PutResponse }

// Size implements rpcfront.Appender.
func (a putAnswer) Size() int {
	return headerFieldBytes(a.r.GetHeader()) + etcdwire.KeyValueBytes(a.r.GetPrevKv())
}

// Append implements rpcfront.Appender.
func (a putAnswer) Append(b []byte) []byte {
	return etcdwire.AppendKeyValue(appendHeader(b, a.r.GetHeader()), 2, a.r.GetPrevKv())
}

type txnAnswer struct{ r *pb.TxnResponse }

// plain reports whether all responses in it are those of ranges and puts.
func (a txnAnswer) plain() bool {
	for _, op := range a.r.GetResponses() {
		if inside, _ := opAnswer(op); inside == nil {
			return false
		}
	}
	return true
}

// opAnswer returns the response of an operation and its field, nil if it is of another kind.
func opAnswer(op *pb.ResponseOp) (inside rpcfront.Appender, field protowire.Number) {
	switch o := op.Response.(type) {
	case *pb.ResponseOp_ResponseRange:
		return rangeAnswer{o.ResponseRange}, 1
	case *pb.ResponseOp_ResponsePut:
		return putAnswer{o.ResponsePut}, 2
	}
	return nil, 0
}

// Size implements rpcfront.Appender.
func (a txnAnswer) Size() int {
	size := headerFieldBytes(a.r.GetHeader()) + etcdwire.BoolBytes(a.r.GetSucceeded())
	for _, op := range a.r.GetResponses() {
		inside, _ := opAnswer(op)
		size += etcdwire.MessageBytes(etcdwire.MessageBytes(inside.Size()))
	}
	return size
}

// Append implements rpcfront.Appender.
func (a txnAnswer) Append(b []byte) []byte {
	b = appendHeader(b, a.r.GetHeader())
	b = etcdwire.AppendBool(b, 2, a.r.GetSucceeded())
	for _, op := range a.r.GetResponses() {
		inside, field := opAnswer(op)
		size := inside.Size()
		b = etcdwire.AppendPrefix(b, 3, etcdwire.MessageBytes(size))
		b = inside.Append(etcdwire.AppendPrefix(b, field, size))
	}
	return b
}

func headerFieldBytes(h *pb.ResponseHeader) int {
	if h == nil {
		return 0
	}
	return etcdwire.MessageBytes(headerBytes(h))
}

func headerBytes(h *pb.ResponseHeader) int {
	return etcdwire.UintBytes(h.ClusterId) + etcdwire.UintBytes(h.MemberId) + etcdwire.UintBytes(uint64(h.Revision)) + etcdwire.UintBytes(h.RaftTerm)
}

func appendHeader(b []byte, h *pb.ResponseHeader) []byte {
	if h == nil {
		return b
	}
	b = etcdwire.AppendPrefix(b, 1, headerBytes(h))
	b = etcdwire.AppendUint(b, 1, h.ClusterId)
	b = etcdwire.AppendUint(b, 2, h.MemberId)
	b = etcdwire.AppendUint(b, 3, uint64(h.Revision))
	return etcdwire.AppendUint(b, 4, h.RaftTerm)
}
