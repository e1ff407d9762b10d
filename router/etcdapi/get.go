package etcdapi

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
	"github.com/flotilla-kv/flotilla/router/admission"
)

// startGet begins a Range that asks for one key and nothing else, as most do, without a goroutine. It is counted and
// admitted like any other (interceptUnary).
func (s *Server) startGet(call rpcfront.Call, request []byte) bool {
	key, ok := keyAlone(request)
	if !ok || s.admitting(call.Header) != nil {
		return false
	}
	place, err := s.cfg.Room.Take(admission.Read, 0)
	if err != nil {
		return false
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
		return false
	}
	s.gets.started.Inc()
	return true
}

// keyAlone returns a copy of the key of a RangeRequest that has nothing but one.
func keyAlone(request []byte) ([]byte, bool) {
	const field = 1
	number, kind, n := protowire.ConsumeTag(request)
	if number != field || kind != protowire.BytesType {
		return nil, false
	}
	key, m := protowire.ConsumeBytes(request[n:])
	if len(key) == 0 || n+m != len(request) {
		return nil, false
	}
	return bytes.Clone(key), true
}
