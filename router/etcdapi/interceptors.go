package etcdapi

import (
	"context"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/admission"
	"github.com/flotilla-kv/flotilla/txn"
)

// interceptUnary counts every unary RPC and admits it if its metadata allow it. It does not recover
// from panics: a broken invariant ends the process.
func (s *Server) interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	counters := s.rpcs.of(info.FullMethod)
	counters.started.Inc()
	resp, err := any(nil), s.admit(ctx)
	if err == nil {
		resp, err = s.within(ctx, info.FullMethod, req, handler)
	}
	counters.handled(status.Code(err)).Inc()
	return resp, err
}

// interceptStream does for streams what interceptUnary does for unary RPCs.
func (s *Server) interceptStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	counters := s.rpcs.of(info.FullMethod)
	counters.started.Inc()
	err := s.admit(stream.Context())
	if err == nil {
		err = s.authorizeStream(stream.Context(), info.FullMethod)
	}
	if err == nil {
		err = handler(srv, stream)
	}
	counters.handled(status.Code(err)).Inc()
	return err
}

// within carries out an RPC if the node admits it (E6) and its caller may make it. The node is asked first: permission may
// depend on keys of leases, which have to be read.
func (s *Server) within(ctx context.Context, method string, req any, handler grpc.UnaryHandler) (any, error) {
	class, bytes := classOf(req), 0
	if class == admission.Write {
		bytes = proto.Size(req.(proto.Message))
	}
	place, err := s.cfg.Room.Take(class, bytes)
	if err != nil {
		return nil, writeError(err)
	}
	defer place.Leave()
	if err := s.authorize(ctx, method, req); err != nil {
		return nil, err
	}
	a := s.answerTo(ctx, class, req)
	resp, err := handler(admission.With(ctx, a), req)
	if err != nil {
		a.Leave()
		return nil, err
	}
	return s.hold(ctx, a, resp), nil
}

// classOf is the admission class of a unary RPC. Requests that keep leases alive or end them, and
// administrative ones, are not delayed by the others.
func classOf(req any) admission.Class {
	switch req := req.(type) {
	case *pb.RangeRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseLeasesRequest:
		return admission.Read
	case *pb.PutRequest, *pb.DeleteRangeRequest, *pb.LeaseGrantRequest:
		return admission.Write
	case *pb.TxnRequest:
		if txn.IsReadOnly(req) {
			return admission.Read
		}
		return admission.Write
	}
	return admission.Exempt
}

// admit refuses an RPC according to its metadata.
func (s *Server) admit(ctx context.Context) error {
	return s.admitting(func(name string) []string { return metadata.ValueFromIncomingContext(ctx, name) })
}

// admitting is admit for the metadata that header returns by lower-case names.
func (s *Server) admitting(header func(name string) []string) error {
	if v := header(rpctypes.MetadataClientAPIVersionKey); len(v) > 0 && !utf8.ValidString(v[0]) {
		return rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	if wantsLeader(header(rpctypes.MetadataRequireLeaderKey)) && !s.cluster.HasLeader() {
		return rpctypes.ErrGRPCNoLeader
	}
	return nil
}

// requiresLeader reports whether the client prefers an error to waiting for a leader.
func requiresLeader(ctx context.Context) bool {
	return wantsLeader(metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey))
}

func wantsLeader(v []string) bool { return len(v) > 0 && v[0] == rpctypes.MetadataHasLeader }
