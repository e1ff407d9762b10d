package etcdapi

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
)

// Writes are what clients send by the thousand, and what waits. A goroutine for each, and all of a
// batch woken at once, would be in the way of everything else that the node has to do: of renewals
// of leases, above all.

// startPut begins a put, which is counted, admitted and checked like any other (interceptUnary).
func (s *Server) startPut(call rpcfront.Call, request []byte) bool {
	kv := &kvServer{Server: s}
	return startWrite(s, pb.KV_Put_FullMethodName, call, request, &pb.PutRequest{}, kv.checkPut, s.kv.StartPut, kv.putAnswer)
}

// startTxn is startPut for a transaction.
func (s *Server) startTxn(call rpcfront.Call, request []byte) bool {
	kv := &kvServer{Server: s}
	return startWrite(s, pb.KV_Txn_FullMethodName, call, request, &pb.TxnRequest{}, kv.checkTxn, s.kv.StartTxn, kv.txnAnswer)
}

func startWrite[Req proto.Message, Resp any](
	s *Server, method string, call rpcfront.Call, request []byte, req Req,
	check func(Req) error, start func(context.Context, Req, func(Resp, error)) Started, answer func(Resp, error) (Resp, error),
) bool {
	if proto.Unmarshal(request, req) != nil || s.admit(call) != nil {
		return false // it is refused in the usual way
	}
	counters := s.rpcs.of(method)
	counters.started.Inc()
	end := func(resp any, err error) {
		counters.handled(status.Code(err)).Inc()
		call.Answer(resp, err)
	}
	place, err := s.cfg.Room.Take(demand(req))
	if err != nil {
		end(nil, writeError(err))
		return true
	}
	w := &write{}
	done := func(resp Resp, err error) {
		w.ended()
		place.Leave()
		end(resp, err)
	}
	if err := check(req); err != nil {
		var none Resp
		done(none, err)
		return true
	}
	w.abandonedAfter(call, start(call, req, func(resp Resp, err error) { done(answer(resp, err)) }))
	return true
}

// write is one under way. When its client has left, or its time is over, it is abandoned.
type write struct {
	mu   sync.Mutex
	over bool
	stop func() bool // of watching the context
}

func (w *write) abandonedAfter(ctx context.Context, started Started) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.stop = context.AfterFunc(ctx, func() { started.Abandon(context.Cause(ctx)) })
	}
}

func (w *write) ended() {
	w.mu.Lock()
	w.over = true
	stop := w.stop
	w.mu.Unlock()
	if stop != nil {
		stop()
	}
}
