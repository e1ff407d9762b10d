package etcdapi

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// authServer is etcd's Auth service for a store without users, whose authentication was never enabled. A client that
// is configured with a user is told so and continues without. docs/ETCD.md says that this is no protection.
type authServer struct {
	pb.UnimplementedAuthServer // never called: registerAuth omits methods that are not implemented here
	*Server
}

// authRevisionFirst is what etcd says before anything was changed.
const authRevisionFirst = 1

// registerAuth adds what can be answered truthfully without users. The rest is refused by name, as any other RPC (E4).
func (s *Server) registerAuth(g grpc.ServiceRegistrar) {
	served := []string{"AuthStatus", "AuthDisable", "Authenticate", "UserList", "RoleList"}
	desc := pb.Auth_ServiceDesc
	desc.Methods = slices.DeleteFunc(slices.Clone(desc.Methods), func(m grpc.MethodDesc) bool {
		return !slices.Contains(served, m.MethodName)
	})
	g.RegisterService(&desc, &authServer{Server: s})
}

func (s *authServer) AuthStatus(context.Context, *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	return &pb.AuthStatusResponse{Header: s.header(s.cluster.Revision()), AuthRevision: authRevisionFirst}, nil
}

func (s *authServer) AuthDisable(context.Context, *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	return &pb.AuthDisableResponse{Header: s.header(s.cluster.Revision())}, nil
}

func (s *authServer) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}

func (s *authServer) UserList(context.Context, *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	return &pb.AuthUserListResponse{Header: s.header(s.cluster.Revision())}, nil
}

func (s *authServer) RoleList(context.Context, *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	return &pb.AuthRoleListResponse{Header: s.header(s.cluster.Revision())}, nil
}
