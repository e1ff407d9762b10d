package conformance

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// The scripts that enable authentication have this administrator, so that the next script can disable it again.
const rootName, rootPassword = "root", "r"

// withToken sends what is called with ctx in the name of whoever got the token.
func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}

// askAuth sends what is about users and roles.
func (a *asker) askAuth(ctx context.Context, req proto.Message) (proto.Message, error) {
	switch req := req.(type) {
	case *pb.AuthEnableRequest:
		return a.auth.AuthEnable(ctx, req)
	case *pb.AuthDisableRequest:
		return a.auth.AuthDisable(ctx, req)
	case *pb.AuthStatusRequest:
		return a.auth.AuthStatus(ctx, req)
	case *pb.AuthenticateRequest:
		return a.auth.Authenticate(ctx, req)
	case *pb.AuthUserAddRequest:
		return a.auth.UserAdd(ctx, req)
	case *pb.AuthUserGetRequest:
		return a.auth.UserGet(ctx, req)
	case *pb.AuthUserListRequest:
		return a.auth.UserList(ctx, req)
	case *pb.AuthUserDeleteRequest:
		return a.auth.UserDelete(ctx, req)
	case *pb.AuthUserChangePasswordRequest:
		return a.auth.UserChangePassword(ctx, req)
	case *pb.AuthUserGrantRoleRequest:
		return a.auth.UserGrantRole(ctx, req)
	case *pb.AuthUserRevokeRoleRequest:
		return a.auth.UserRevokeRole(ctx, req)
	case *pb.AuthRoleAddRequest:
		return a.auth.RoleAdd(ctx, req)
	case *pb.AuthRoleGetRequest:
		return a.auth.RoleGet(ctx, req)
	case *pb.AuthRoleListRequest:
		return a.auth.RoleList(ctx, req)
	case *pb.AuthRoleDeleteRequest:
		return a.auth.RoleDelete(ctx, req)
	case *pb.AuthRoleGrantPermissionRequest:
		return a.auth.RoleGrantPermission(ctx, req)
	case *pb.AuthRoleRevokePermissionRequest:
		return a.auth.RoleRevokePermission(ctx, req)
	default:
		return nil, fmt.Errorf("no script may send a %T", req)
	}
}

// askNode sends what is about the server itself. Who may ask is compared; what a server says of itself
// is its own affair, so that nothing is left of an answer but that it came.
func (a *asker) askNode(ctx context.Context, req proto.Message) (resp proto.Message, err error) {
	switch req := req.(type) {
	case *pb.StatusRequest:
		resp, err = a.maintenance.Status(ctx, req)
	case *pb.AlarmRequest:
		resp, err = a.maintenance.Alarm(ctx, req)
	case *pb.DefragmentRequest:
		resp, err = a.maintenance.Defragment(ctx, req)
	case *pb.HashRequest:
		resp, err = a.maintenance.Hash(ctx, req)
	case *pb.HashKVRequest:
		resp, err = a.maintenance.HashKV(ctx, req)
	case *pb.MoveLeaderRequest:
		resp, err = a.maintenance.MoveLeader(ctx, req)
	case *pb.DowngradeRequest:
		resp, err = a.maintenance.Downgrade(ctx, req)
	case *pb.SnapshotRequest:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, opened := a.maintenance.Snapshot(ctx, req)
		if opened != nil {
			return nil, opened
		}
		resp, err = stream.Recv()
	case *pb.MemberListRequest:
		resp, err = a.cluster.MemberList(ctx, req)
	case *pb.MemberAddRequest:
		resp, err = a.cluster.MemberAdd(ctx, req)
	case *pb.MemberRemoveRequest:
		resp, err = a.cluster.MemberRemove(ctx, req)
	case *pb.MemberUpdateRequest:
		resp, err = a.cluster.MemberUpdate(ctx, req)
	case *pb.MemberPromoteRequest:
		resp, err = a.cluster.MemberPromote(ctx, req)
	default:
		return nil, fmt.Errorf("no script may send a %T", req)
	}
	if err != nil {
		return nil, err
	}
	return resp.ProtoReflect().New().Interface(), nil
}

// watch begins one watch and returns the first that comes: whether there will be more.
func (a *asker) watch(ctx context.Context, req *pb.WatchCreateRequest) (proto.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.watches.Watch(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}); err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	resp.Header = nil // as in Watches
	return resp, nil
}

// open disables authentication, which a script may have left enabled, and removes all users and roles. It returns the
// number of changes to them until then: the scripts count from there.
func (a *asker) open(ctx context.Context) (authRevision uint64, err error) {
	status, err := a.auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask whether authentication is enabled: %w", err)
	}
	if status.Enabled {
		resp, err := a.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: rootName, Password: rootPassword})
		if err != nil {
			return 0, fmt.Errorf("log in to disable authentication: %w", err)
		}
		if _, err := a.auth.AuthDisable(withToken(ctx, resp.Token), &pb.AuthDisableRequest{}); err != nil {
			return 0, fmt.Errorf("disable authentication: %w", err)
		}
	}
	users, err := a.auth.UserList(ctx, &pb.AuthUserListRequest{})
	if err != nil {
		return 0, fmt.Errorf("list users: %w", err)
	}
	roles, err := a.auth.RoleList(ctx, &pb.AuthRoleListRequest{})
	if err != nil {
		return 0, fmt.Errorf("list roles: %w", err)
	}
	for _, name := range users.Users {
		_, e := a.auth.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: name})
		err = errors.Join(err, e)
	}
	for _, name := range roles.Roles {
		_, e := a.auth.RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: name})
		err = errors.Join(err, e)
	}
	if err != nil {
		return 0, fmt.Errorf("remove users and roles: %w", err)
	}
	if status, err = a.auth.AuthStatus(ctx, &pb.AuthStatusRequest{}); err != nil {
		return 0, fmt.Errorf("ask for the number of changes: %w", err)
	}
	return status.AuthRevision, nil
}
