package etcdapi

import (
	"bytes"

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
	end := func(resp *pb.RangeResponse, err error) {
		place.Leave()
		s.gets.handled(status.Code(err)).Inc()
		call.Answer(resp, err)
	}
	started := s.kv.StartGet(key, func(resp *pb.RangeResponse, ok bool) {
		if ok {
			s.fill(resp.Header)
			end(resp, nil)
			return
		}
		go func() { end((&kvServer{Server: s}).Range(call, &pb.RangeRequest{Key: key})) }()
	})
	if !started {
		place.Leave()
		return nil, false
	}
	s.gets.started.Inc()
	return nil, true
}
