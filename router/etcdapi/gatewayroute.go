package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/etcdapi/v3electionpb"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3lockpb"
)

// routeCoordination serves Lock and Election under etcd's paths. etcd's generated routes for them
// are in its server module.
func routeCoordination(mux *runtime.ServeMux, conn grpc.ClientConnInterface) error {
	lock, election := v3lockpb.NewLockClient(conn), v3electionpb.NewElectionClient(conn)
	return errors.Join(
		routeUnary(mux, "/v3/lock/lock", v3lockpb.Lock_Lock_FullMethodName, lock.Lock),
		routeUnary(mux, "/v3/lock/unlock", v3lockpb.Lock_Unlock_FullMethodName, lock.Unlock),
		routeUnary(mux, "/v3/election/campaign", v3electionpb.Election_Campaign_FullMethodName, election.Campaign),
		routeUnary(mux, "/v3/election/proclaim", v3electionpb.Election_Proclaim_FullMethodName, election.Proclaim),
		routeUnary(mux, "/v3/election/leader", v3electionpb.Election_Leader_FullMethodName, election.Leader),
		routeUnary(mux, "/v3/election/resign", v3electionpb.Election_Resign_FullMethodName, election.Resign),
		routeStream(mux, "/v3/election/observe", v3electionpb.Election_Observe_FullMethodName, election.Observe),
	)
}

// message is a pointer to a generated message.
type message[M any] interface {
	*M
	proto.Message
}

// routeUnary serves an RPC under a path as generated routes do: the body is the request, an empty
// body the empty request.
func routeUnary[M any, Req message[M], Resp proto.Message](
	mux *runtime.ServeMux, path, method string, call func(context.Context, Req, ...grpc.CallOption) (Resp, error),
) error {
	return route(mux, path, method, func(ctx context.Context, in, out runtime.Marshaler, w http.ResponseWriter, r *http.Request) error {
		req := Req(new(M))
		if err := decode(in, r, req); err != nil {
			return err
		}
		var answered runtime.ServerMetadata // clients see it as headers
		resp, err := call(ctx, req, grpc.Header(&answered.HeaderMD), grpc.Trailer(&answered.TrailerMD))
		if err != nil {
			return err
		}
		runtime.ForwardResponseMessage(runtime.NewServerMetadataContext(ctx, answered), mux, out, w, r, resp)
		return nil
	})
}

// routeStream does the same for an RPC with a stream of responses.
func routeStream[M any, Req message[M], R any](
	mux *runtime.ServeMux, path, method string, call func(context.Context, Req, ...grpc.CallOption) (grpc.ServerStreamingClient[R], error),
) error {
	return route(mux, path, method, func(ctx context.Context, in, out runtime.Marshaler, w http.ResponseWriter, r *http.Request) error {
		req := Req(new(M))
		if err := decode(in, r, req); err != nil {
			return err
		}
		stream, err := call(ctx, req)
		if err != nil {
			return err
		}
		header, err := stream.Header()
		if err != nil {
			return err
		}
		ctx = runtime.NewServerMetadataContext(ctx, runtime.ServerMetadata{HeaderMD: header})
		runtime.ForwardResponseStream(ctx, mux, out, w, r, func() (proto.Message, error) {
			resp, err := stream.Recv()
			return any(resp).(proto.Message), err
		})
		return nil
	})
}

// route adds a path, for whose requests serve returns the answer or an error.
func route(mux *runtime.ServeMux, path, method string, serve func(ctx context.Context, in, out runtime.Marshaler, w http.ResponseWriter, r *http.Request) error) error {
	err := mux.HandlePath(http.MethodPost, path, func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		in, out := runtime.MarshalerForRequest(mux, r)
		ctx, err := runtime.AnnotateContext(r.Context(), mux, r, method, runtime.WithHTTPPathPattern(path))
		if err == nil {
			err = serve(runtime.NewServerMetadataContext(ctx, runtime.ServerMetadata{}), in, out, w, r)
		}
		if err != nil {
			runtime.HTTPError(r.Context(), mux, out, w, r, err)
		}
	})
	if err != nil {
		return fmt.Errorf("route %s: %w", path, err)
	}
	return nil
}

func decode(in runtime.Marshaler, r *http.Request, req proto.Message) error {
	if err := in.NewDecoder(r.Body).Decode(req); err != nil && !errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return nil
}
