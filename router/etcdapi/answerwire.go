package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
)

// What is answered by the thousand is what proto.Marshal makes of it, to the byte, without reflection.

// appenderOf returns how a response is marshalled by hand, nil if it is not.
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

// marshaledAnswer is an answer that is not sent at once.
func marshaledAnswer(a rpcfront.Appender) mem.BufferSlice {
	pool := mem.DefaultBufferPool()
	buf := pool.Get(a.Size())
	*buf = a.Append((*buf)[:0])
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}
}

type rangeAnswer struct{ r *pb.RangeResponse }

// Size implements rpcfront.Appender.
func (a rangeAnswer) Size() int {
	size := headerFieldBytes(a.r.GetHeader()) + uintBytes(protowire.EncodeBool(a.r.GetMore())) + uintBytes(uint64(a.r.GetCount()))
	for _, kv := range a.r.GetKvs() {
		size += keyValueFieldBytes(kv)
	}
	return size
}

// Append implements rpcfront.Appender.
func (a rangeAnswer) Append(b []byte) []byte {
	b = appendHeader(b, a.r.GetHeader())
	for _, kv := range a.r.GetKvs() {
		b = appendKeyValue(b, 2, kv)
	}
	b = appendUint(b, 3, protowire.EncodeBool(a.r.GetMore()))
	return appendUint(b, 4, uint64(a.r.GetCount()))
}

type putAnswer struct{ r *pb.PutResponse }

// Size implements rpcfront.Appender.
func (a putAnswer) Size() int {
	return headerFieldBytes(a.r.GetHeader()) + keyValueFieldBytes(a.r.GetPrevKv())
}

// Append implements rpcfront.Appender.
func (a putAnswer) Append(b []byte) []byte {
	return appendKeyValue(appendHeader(b, a.r.GetHeader()), 2, a.r.GetPrevKv())
}

type txnAnswer struct{ r *pb.TxnResponse }

// plain reports whether all answers in it are to ranges and puts.
func (a txnAnswer) plain() bool {
	for _, op := range a.r.GetResponses() {
		if inside, _ := opAnswer(op); inside == nil {
			return false
		}
	}
	return true
}

// opAnswer is the answer to an operation, nil if it is of another kind, and its field.
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
	size := headerFieldBytes(a.r.GetHeader()) + uintBytes(protowire.EncodeBool(a.r.GetSucceeded()))
	for _, op := range a.r.GetResponses() {
		inside, _ := opAnswer(op)
		size += messageBytes(messageBytes(inside.Size()))
	}
	return size
}

// Append implements rpcfront.Appender.
func (a txnAnswer) Append(b []byte) []byte {
	b = appendHeader(b, a.r.GetHeader())
	b = appendUint(b, 2, protowire.EncodeBool(a.r.GetSucceeded()))
	for _, op := range a.r.GetResponses() {
		inside, field := opAnswer(op)
		size := inside.Size()
		b = appendMessage(b, 3, messageBytes(size))
		b = inside.Append(appendMessage(b, field, size))
	}
	return b
}

func headerFieldBytes(h *pb.ResponseHeader) int {
	if h == nil {
		return 0
	}
	return messageBytes(headerBytes(h))
}

func headerBytes(h *pb.ResponseHeader) int {
	return uintBytes(h.ClusterId) + uintBytes(h.MemberId) + uintBytes(uint64(h.Revision)) + uintBytes(h.RaftTerm)
}

func appendHeader(b []byte, h *pb.ResponseHeader) []byte {
	if h == nil {
		return b
	}
	b = appendMessage(b, 1, headerBytes(h))
	b = appendUint(b, 1, h.ClusterId)
	b = appendUint(b, 2, h.MemberId)
	b = appendUint(b, 3, uint64(h.Revision))
	return appendUint(b, 4, h.RaftTerm)
}

// messageBytes is what a message of so many bytes takes as a field with a number below 16.
func messageBytes(size int) int { return 1 + protowire.SizeBytes(size) }

// appendMessage appends what stands before a message of so many bytes in another.
func appendMessage(b []byte, field protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(size))
}
