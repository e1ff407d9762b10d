package etcdapi

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// Users reads and changes users and roles.
type Users interface {
	// Auth returns who may do what, with every change that was acknowledged before.
	Auth(ctx context.Context) (*placement.Auth, error)
	// Change returns when no node permits anything by what was before. A refusal is a
	// *placement.RefusedError, or has a gRPC code.
	Change(ctx context.Context, c *placementpb.ChangeAuth) error
}

// authServer is etcd's Auth service.
type authServer struct {
	pb.UnsafeAuthServer
	*Server
}

// now is who may do what.
func (s *authServer) now(ctx context.Context) (*placement.Auth, error) {
	if s.cfg.Users == nil {
		return (&placement.Map{}).Auth(), nil
	}
	a, err := s.cfg.Users.Auth(ctx)
	if err != nil {
		return nil, readError(ctx, err)
	}
	return a, nil
}

// change makes a change in the name of the caller, and returns the header of its response. That
// the caller may is decided once more in the table (placement.P11).
func (s *authServer) change(ctx context.Context, c *placementpb.ChangeAuth) (*pb.ResponseHeader, error) {
	if s.cfg.Users == nil {
		method, _ := grpc.Method(ctx)
		return nil, unimplemented(rpcName(method))
	}
	var err error
	if c.ByUser, err = s.cfg.Auth.Of(ctx).Name(); err != nil {
		return nil, err
	}
	err = s.cfg.Users.Change(ctx, c)
	var refused *placement.RefusedError
	if errors.As(err, &refused) {
		return nil, refusedChange(refused)
	}
	if err != nil {
		return nil, writeError(err)
	}
	return s.header(s.cluster.Revision()), nil
}

func refusedChange(err *placement.RefusedError) error {
	switch err.Auth {
	case placementpb.AuthRefusal_ROOT_USER_MISSING:
		return rpctypes.ErrGRPCRootUserNotExist
	case placementpb.AuthRefusal_ROOT_ROLE_MISSING:
		return rpctypes.ErrGRPCRootRoleNotExist
	case placementpb.AuthRefusal_USER_EXISTS:
		return rpctypes.ErrGRPCUserAlreadyExist
	case placementpb.AuthRefusal_USER_EMPTY:
		return rpctypes.ErrGRPCUserEmpty
	case placementpb.AuthRefusal_USER_MISSING:
		return rpctypes.ErrGRPCUserNotFound
	case placementpb.AuthRefusal_ROLE_EXISTS:
		return rpctypes.ErrGRPCRoleAlreadyExist
	case placementpb.AuthRefusal_ROLE_MISSING:
		return rpctypes.ErrGRPCRoleNotFound
	case placementpb.AuthRefusal_ROLE_EMPTY:
		return rpctypes.ErrGRPCRoleEmpty
	case placementpb.AuthRefusal_PERMISSION_MISSING:
		return rpctypes.ErrGRPCPermissionNotGiven
	case placementpb.AuthRefusal_ROLE_NOT_GRANTED:
		return rpctypes.ErrGRPCRoleNotGranted
	case placementpb.AuthRefusal_PERMISSION_NOT_GRANTED:
		return rpctypes.ErrGRPCPermissionNotGranted
	case placementpb.AuthRefusal_INVALID_MANAGEMENT:
		return rpctypes.ErrGRPCInvalidAuthMgmt
	case placementpb.AuthRefusal_PERMISSION_DENIED:
		return rpctypes.ErrGRPCPermissionDenied
	}
	return status.Error(codes.FailedPrecondition, err.Message)
}

func (s *authServer) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	a, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AuthStatusResponse{Header: s.header(s.cluster.Revision()), Enabled: a.Enabled, AuthRevision: a.Revision}, nil
}

func (s *authServer) AuthEnable(ctx context.Context, _ *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	key := make([]byte, 32)
	rand.Read(key)
	h, err := s.change(ctx, &placementpb.ChangeAuth{Action: placementpb.AuthAction_ENABLE, TokenKey: key})
	if err != nil {
		return nil, err
	}
	return &pb.AuthEnableResponse{Header: h}, nil
}

func (s *authServer) AuthDisable(ctx context.Context, _ *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	if s.cfg.Users == nil {
		return &pb.AuthDisableResponse{Header: s.header(s.cluster.Revision())}, nil
	}
	h, err := s.change(ctx, &placementpb.ChangeAuth{Action: placementpb.AuthAction_DISABLE})
	if err != nil {
		return nil, err
	}
	return &pb.AuthDisableResponse{Header: h}, nil
}

// Authenticate checks the password by the table as it is now, and again if that has changed meanwhile, so that a
// password that was changed is not accepted any more.
func (s *authServer) Authenticate(ctx context.Context, req *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	password := req.Password
	req.Password = "" // nobody else sees it
	a, err := s.now(ctx)
	for {
		if err != nil {
			return nil, err
		}
		if !a.Enabled {
			return nil, rpctypes.ErrGRPCAuthNotEnabled
		}
		if err := s.cfg.Passwords.Check(ctx, a, req.Name, password); err != nil {
			return nil, err
		}
		before := a
		if a, err = s.now(ctx); err == nil && a.Revision == before.Revision && a.Enabled {
			token, err := s.cfg.Auth.Issue(a, req.Name)
			if err != nil {
				return nil, err
			}
			return &pb.AuthenticateResponse{Header: s.header(s.cluster.Revision()), Token: token}, nil
		}
	}
}

func (s *authServer) UserAdd(ctx context.Context, req *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	c := &placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_ADD, User: req.Name, NoPassword: req.Options.GetNoPassword()}
	password := req.Password
	req.Password = ""
	var err error
	if !c.NoPassword && s.cfg.Users != nil {
		if c.PasswordHash, err = s.cfg.Passwords.Hash(ctx, password); err != nil {
			return nil, err
		}
	}
	h, err := s.change(ctx, c)
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserAddResponse{Header: h}, nil
}

func (s *authServer) UserChangePassword(ctx context.Context, req *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	password := req.Password
	req.Password = ""
	if s.cfg.Users == nil {
		return nil, unimplemented("Auth.UserChangePassword")
	}
	hash := []byte(nil)
	var err error
	if password != "" { // as in etcd, without one nobody can authenticate
		if hash, err = s.cfg.Passwords.Hash(ctx, password); err != nil {
			return nil, err
		}
	}
	h, err := s.change(ctx, &placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_PASSWORD, User: req.Name, PasswordHash: hash})
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserChangePasswordResponse{Header: h}, nil
}

func (s *authServer) UserDelete(ctx context.Context, req *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	h, err := s.change(ctx, &placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_DELETE, User: req.Name})
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserDeleteResponse{Header: h}, nil
}

func (s *authServer) UserGrantRole(ctx context.Context, req *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	h, err := s.change(ctx, &placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_GRANT_ROLE, User: req.User, Role: req.Role})
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserGrantRoleResponse{Header: h}, nil
}

func (s *authServer) UserRevokeRole(ctx context.Context, req *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	h, err := s.change(ctx, &placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_REVOKE_ROLE, User: req.Name, Role: req.Role})
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserRevokeRoleResponse{Header: h}, nil
}

func (s *authServer) RoleAdd(ctx context.Context, req *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	h, err := s.change(ctx, &placementpb.ChangeAuth{Action: placementpb.AuthAction_ROLE_ADD, Role: req.Name})
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleAddResponse{Header: h}, nil
}

func (s *authServer) RoleDelete(ctx context.Context, req *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	h, err := s.change(ctx, &placementpb.ChangeAuth{Action: placementpb.AuthAction_ROLE_DELETE, Role: req.Role})
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleDeleteResponse{Header: h}, nil
}

func (s *authServer) RoleGrantPermission(ctx context.Context, req *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	c := &placementpb.ChangeAuth{Action: placementpb.AuthAction_ROLE_GRANT, Role: req.Name}
	if p := req.Perm; p != nil {
		c.Permission = &placementpb.Permission{Key: p.Key, RangeEnd: p.RangeEnd, Access: placementpb.Access(p.PermType)}
	}
	h, err := s.change(ctx, c)
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleGrantPermissionResponse{Header: h}, nil
}

func (s *authServer) RoleRevokePermission(ctx context.Context, req *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	h, err := s.change(ctx, &placementpb.ChangeAuth{
		Action: placementpb.AuthAction_ROLE_REVOKE, Role: req.Role, Permission: &placementpb.Permission{Key: req.Key, RangeEnd: req.RangeEnd},
	})
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleRevokePermissionResponse{Header: h}, nil
}

func (s *authServer) UserList(ctx context.Context, _ *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	a, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.AuthUserListResponse{Header: s.header(s.cluster.Revision())}
	for _, u := range a.Users() {
		resp.Users = append(resp.Users, u.Name)
	}
	return resp, nil
}

func (s *authServer) RoleList(ctx context.Context, _ *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	a, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.AuthRoleListResponse{Header: s.header(s.cluster.Revision())}
	for _, r := range a.Roles() {
		resp.Roles = append(resp.Roles, r.Name)
	}
	return resp, nil
}

// UserGet is for root users, and for the user itself.
func (s *authServer) UserGet(ctx context.Context, req *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	a, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	c := s.cfg.Auth.Of(ctx)
	if err := c.Root(); err != nil {
		if name, unknown := c.Name(); unknown != nil || name == "" || name != req.Name {
			return nil, err
		}
	}
	user := a.User(req.Name)
	if user == nil {
		return nil, rpctypes.ErrGRPCUserNotFound
	}
	return &pb.AuthUserGetResponse{Header: s.header(s.cluster.Revision()), Roles: user.Roles}, nil
}

// RoleGet is for root users, and for those who have the role.
func (s *authServer) RoleGet(ctx context.Context, req *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	a, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	c := s.cfg.Auth.Of(ctx)
	if err := c.Root(); err != nil {
		if name, unknown := c.Name(); unknown != nil || !slices.Contains(a.User(name).GetRoles(), req.Role) {
			return nil, err
		}
	}
	role := a.Role(req.Role)
	if role == nil {
		return nil, rpctypes.ErrGRPCRoleNotFound
	}
	resp := &pb.AuthRoleGetResponse{Header: s.header(s.cluster.Revision())}
	if role.Name == placement.Root {
		resp.Perm = append(resp.Perm, &authpb.Permission{PermType: authpb.Permission_READWRITE, RangeEnd: []byte{0}})
		return resp, nil
	}
	for _, p := range role.Permissions {
		resp.Perm = append(resp.Perm, &authpb.Permission{PermType: authpb.Permission_Type(p.Access), Key: p.Key, RangeEnd: p.RangeEnd})
	}
	return resp, nil
}
