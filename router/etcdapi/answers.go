package etcdapi

import (
	"context"
	"runtime"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
	"github.com/flotilla-kv/flotilla/router/admission"
)

// answerTo is the room of the answer to a request that reads keys; nil for all others.
func (s *Server) answerTo(ctx context.Context, class admission.Class, req any) *admission.Answer {
	if class == admission.Read {
		switch req := req.(type) {
		case *pb.RangeRequest:
			if len(req.RangeEnd) == 0 {
				return s.newAnswer(ctx, admission.Get)
			}
			return s.newAnswer(ctx, admission.List)
		case *pb.TxnRequest:
			return s.newAnswer(ctx, admission.List)
		}
	}
	return nil
}

func (s *Server) newAnswer(ctx context.Context, kind admission.Kind) *admission.Answer {
	_, hangup := rpcfront.Client(ctx)
	if hangup == nil {
		if call := s.web.of(ctx); call != nil {
			hangup = call.hangup
		}
	}
	return s.cfg.Answers.New(ctx, kind, hangup)
}

// hold has a response that is not small hold its room until its client has taken it or is gone (E8). a is nil for one that
// has asked for none, because it tells of a write: it is counted all the same.
func (s *Server) hold(ctx context.Context, a *admission.Answer, resp any) any {
	size := 0
	if a == nil || a.Used() >= admission.SmallAnswer { // what is sent is less than what was read
		size = answerBytes(resp)
	}
	if a == nil && size >= admission.SmallAnswer {
		a = s.newAnswer(ctx, admission.Written)
	}
	var call *webCall
	if size >= admission.SmallAnswer {
		if call = s.web.of(ctx); call != nil {
			size *= webBytes
		}
	}
	if !a.Finish(size) {
		return resp
	}
	if call != nil {
		call.hold(a)
		return resp
	}
	h := &heldAnswer{resp: resp, leave: a.Leave}
	if gone, _ := rpcfront.Client(ctx); gone != nil {
		// Neither server frees what it has not sent when the connection ends.
		stop := context.AfterFunc(gone, a.Leave)
		h.leave = func() {
			stop()
			a.Leave()
		}
	}
	return h
}

// answerBytes is the size of a response that has keys; 0 if it certainly has none, as most of those to writes.
func answerBytes(resp any) int {
	switch r := resp.(type) {
	case *pb.RangeResponse:
		return rangeAnswer{r}.Size()
	case *pb.PutResponse:
		if r.PrevKv != nil {
			return putAnswer{r}.Size()
		}
	case *pb.DeleteRangeResponse:
		if len(r.PrevKvs) > 0 {
			return proto.Size(r)
		}
	case *pb.TxnResponse:
		if a := (txnAnswer{r}); a.plain() {
			return a.Size()
		}
		return proto.Size(r)
	}
	return 0
}

// heldAnswer is a response that returns its room once its encoding was sent. It is the pool of that.
type heldAnswer struct {
	resp  any
	leave func()
}

var _ mem.BufferPool = (*heldAnswer)(nil)

// Get implements mem.BufferPool.
func (h *heldAnswer) Get(size int) *[]byte {
	buf := make([]byte, size)
	return &buf
}

// Put implements mem.BufferPool: nobody uses the buffer any more.
func (h *heldAnswer) Put(*[]byte) { h.leave() }

// marshal encodes the response with the others' codec.
func (h *heldAnswer) marshal(c codec) (mem.BufferSlice, error) {
	var data []byte
	if a := appenderOf(h.resp); a != nil {
		data = a.Append(make([]byte, 0, a.Size()))
	} else {
		parts, err := c.CodecV2.Marshal(h.resp)
		if err != nil {
			h.leave()
			return nil, err
		}
		data = parts.Materialize()
		parts.Free()
	}
	h.resp = nil // from here on there is only its encoding
	if len(data) > 0 {
		// What grpc-go is given for a call that was just cancelled it drops, and does not return.
		runtime.AddCleanup(&data[0], func(leave func()) { leave() }, h.leave)
	}
	return mem.BufferSlice{mem.NewBuffer(&data, h)}, nil
}
