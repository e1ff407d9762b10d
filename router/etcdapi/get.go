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

// startGet begins a Range that asks for one key and nothing else, as most do, without a goroutine. It is counted and
// admitted like any other (interceptUnary).
func (s *Server) startGet(call rpcfront.Call, request []byte) (rpcfront.Started, bool) {
	key, ok := etcdwire.GetKey(request)
	if !ok || !s.cfg.Auth.Open() || s.admitting(call.Header) != nil {
		return nil, false
	}
	key = bytes.Clone(key) // the request's bytes are the connection's
	place, err := s.cfg.Room.Take(admission.Read, 0)
	if err != nil {
		return nil, false
	}
	end := func(resp any, err error) {
		place.Leave()
		s.gets.handled(status.Code(err)).Inc()
		call.Answer(resp, err)
	}
	started := s.kv.StartGet(key, func(resp *pb.RangeResponse, ok bool) {
		var a *admission.Answer // a small value needs none
		if ok && valueBytes(resp) >= admission.SmallAnswer {
			a = s.newAnswer(call, admission.Get)
			ok = a.Take(valueBytes(resp))
		}
		if ok {
			s.fill(resp.Header)
			if a != nil {
				end(s.hold(call, a, resp), nil)
			} else {
				end(resp, nil)
			}
			return
		}
		go func() { end(s.get(call, key)) }() // and wait, if there is no room
	})
	if !started {
		place.Leave()
		return nil, false
	}
	s.gets.started.Inc()
	return nil, true
}

// get is Range of one key on a goroutine that may wait.
func (s *Server) get(ctx context.Context, key []byte) (any, error) {
	a := s.newAnswer(ctx, admission.Get)
	resp, err := (&kvServer{Server: s}).Range(admission.With(ctx, a), &pb.RangeRequest{Key: key})
	if err != nil {
		a.Leave()
		return nil, err
	}
	return s.hold(ctx, a, resp), nil
}

// valueBytes is the size of the value that a get has found.
func valueBytes(resp *pb.RangeResponse) int {
	if len(resp.Kvs) == 0 {
		return 0
	}
	return len(resp.Kvs[0].Value)
}
