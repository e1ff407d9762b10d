package etcdapi

import (
	"context"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// interceptUnary counts every unary RPC and admits those whose metadata allow it. It
// does not recover from panics: a broken invariant ends the process.
func (s *Server) interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	counters := s.rpcs.of(info.FullMethod)
	counters.started.Inc()
	resp, err := any(nil), s.admit(ctx)
	if err == nil {
		resp, err = handler(ctx, req)
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
		err = handler(srv, stream)
	}
	counters.handled(status.Code(err)).Inc()
	return err
}

// admit refuses by what etcd clients say in the metadata of an RPC.
func (s *Server) admit(ctx context.Context) error {
	if v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey); len(v) > 0 && !utf8.ValidString(v[0]) {
		return rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	if requiresLeader(ctx) && !s.cluster.HasLeader() {
		return rpctypes.ErrGRPCNoLeader
	}
	return nil
}

// requiresLeader reports whether the client would rather have an error than wait for a
// leader.
func requiresLeader(ctx context.Context) bool {
	v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(v) > 0 && v[0] == rpctypes.MetadataHasLeader
}
