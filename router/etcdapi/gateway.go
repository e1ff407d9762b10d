package etcdapi

import (
	"context"
	"fmt"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
)

// NewGateway returns the JSON gateway of etcd's API under /v3/. It forwards every request over
// conn, for example a Loopback's. 64-bit integers are strings, bytes are base64, zero values are
// omitted, streams are one JSON object per line.
func (s *Server) NewGateway(conn grpc.ClientConnInterface) (http.Handler, error) {
	conn = webConn{conn}
	mux := runtime.NewServeMux(runtime.WithErrorHandler(answerError), runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{
		Marshaler: &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: false},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		},
	}))
	// The generated functions use the context only while they run.
	ctx := context.Background()
	for _, register := range []func() error{
		func() error { return gw.RegisterKVHandlerClient(ctx, mux, pb.NewKVClient(conn)) },
		func() error { return gw.RegisterWatchHandlerClient(ctx, mux, pb.NewWatchClient(conn)) },
		func() error { return gw.RegisterLeaseHandlerClient(ctx, mux, pb.NewLeaseClient(conn)) },
		func() error { return gw.RegisterClusterHandlerClient(ctx, mux, pb.NewClusterClient(conn)) },
		func() error { return gw.RegisterMaintenanceHandlerClient(ctx, mux, pb.NewMaintenanceClient(conn)) },
		func() error { return gw.RegisterAuthHandlerClient(ctx, mux, pb.NewAuthClient(conn)) },
		func() error { return routeCoordination(mux, conn) },
	} {
		if err := register(); err != nil {
			return nil, fmt.Errorf("register a service with the JSON gateway: %w", err)
		}
	}
	return s.web.serve(mux), nil
}
