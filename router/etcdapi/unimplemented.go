package etcdapi

import (
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// unimplemented refuses an RPC by name, "Lease.LeaseGrant" for example (E4).
func unimplemented(rpc string) error {
	return status.Errorf(codes.Unimplemented, "flotilla: %s is not implemented", rpc)
}

// refuseUnknown answers every RPC that no registered service has. It is a
// grpc.StreamHandler.
func refuseUnknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return unimplemented(rpcName(method))
}

// rpcName shortens a gRPC method, "/etcdserverpb.Lease/LeaseGrant", to the name its users know:
// "Lease.LeaseGrant".
func rpcName(method string) string {
	service, rpc, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service[strings.LastIndexByte(service, '.')+1:] + "." + rpc
}
