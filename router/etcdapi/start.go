package etcdapi

import (
	"bytes"
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/internal/rpcfront"
	"github.com/flotilla-kv/flotilla/router/admission"
)

// starters serve the requests that clients send in large numbers. A goroutine for each costs more
// than reading a key, and those of a batch of writes, woken all at once, would delay everything
// else that the node has to do, above all lease renewals.
func (s *Server) starters() map[string]rpcfront.Starter {
	kv := &kvServer{Server: s}
	return map[string]rpcfront.Starter{
		pb.KV_Range_FullMethodName: s.startGet,
		pb.KV_Put_FullMethodName: starter(s, pb.KV_Put_FullMethodName, etcdwire.UnmarshalPut, func(ctx context.Context, req *pb.PutRequest, encoded []byte, answer func(*pb.PutResponse, error)) rpcfront.Started {
			if err := kv.checkPut(req, len(encoded)); err != nil {
				answer(nil, err)
				return nil
			}
			return s.kv.StartEncodedPut(ctx, req, encoded, func(resp *pb.PutResponse, err error) { answer(kv.putAnswer(resp, err)) })
		}),
		pb.KV_Txn_FullMethodName: starter(s, pb.KV_Txn_FullMethodName, etcdwire.UnmarshalTxn, func(ctx context.Context, req *pb.TxnRequest, encoded []byte, answer func(*pb.TxnResponse, error)) rpcfront.Started {
			if err := kv.checkTxn(req, len(encoded)); err != nil {
				answer(nil, err)
				return nil
			}
			return s.kv.StartEncodedTxn(ctx, req, encoded, func(resp *pb.TxnResponse, err error) { answer(kv.txnAnswer(resp, err)) })
		}),
	}
}

// starter does for started calls of a method what interceptUnary does for others. The decoded
// request aliases the client's bytes, which become the command's body, so that nothing is
// marshalled again. A request that cannot be decoded is left for the handler to refuse.
func starter[Req, Resp any](
	s *Server, path string, read func([]byte, *Req) error,
	start func(ctx context.Context, req *Req, encoded []byte, answer func(*Resp, error)) rpcfront.Started,
) rpcfront.Starter {
	counters := s.rpcs.of(path)
	return func(call rpcfront.Call, request []byte) (rpcfront.Started, bool) {
		if !s.cfg.Auth.Open() {
			return nil, false // checking permission may block
		}
		encoded, req := bytes.Clone(request), new(Req)
		if read(encoded, req) != nil {
			return nil, false
		}
		counters.started.Inc()
		answer := func(resp any, err error) {
			counters.handled(status.Code(err)).Inc()
			call.AnswerWithin(s.cfg.AnswerDistance(), resp, err)
		}
		if err := s.admitting(call.Header); err != nil {
			answer(nil, err)
			return nil, true
		}
		class := classOf(req)
		place, err := s.cfg.Room.Take(class, len(encoded))
		if err != nil {
			answer(nil, writeError(err))
			return nil, true
		}
		a := s.answerTo(call, class, req)
		return start(admission.With(call, a), req, encoded, func(resp *Resp, err error) {
			place.Leave()
			if err != nil {
				a.Leave()
				answer(nil, err)
				return
			}
			answer(s.hold(call, a, resp), nil)
		}), true
	}
}
