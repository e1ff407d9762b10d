package etcdapi

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/auth"
)

// enabled is the guard of a cluster with authentication, and a token of ann, who may write foo.
func enabled(t *testing.T) (guard *auth.Guard, ann string) {
	state := placement.NewState()
	apply := func(c *placementpb.Command) { require.NoError(t, placement.ResultError(state.Apply(c))) }
	apply(&placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: &placementpb.InitCluster{
		ClusterId: 1, ReplicationFactor: 1, Nodes: []*placementpb.Node{{NodeId: 1, Name: "n1", PeerAddr: "n1:1", Incarnation: []byte("d")}},
	}}})
	for _, c := range []*placementpb.ChangeAuth{
		{Action: placementpb.AuthAction_USER_ADD, User: placement.Root, NoPassword: true},
		{Action: placementpb.AuthAction_USER_GRANT_ROLE, User: placement.Root, Role: placement.Root},
		{Action: placementpb.AuthAction_USER_ADD, User: "ann", PasswordHash: []byte("h")},
		{Action: placementpb.AuthAction_ROLE_ADD, Role: "writer"},
		{Action: placementpb.AuthAction_ROLE_GRANT, Role: "writer", Permission: &placementpb.Permission{Key: []byte("foo"), Access: placementpb.Access_READWRITE}},
		{Action: placementpb.AuthAction_USER_GRANT_ROLE, User: "ann", Role: "writer"},
		{Action: placementpb.AuthAction_ARM},
		{Action: placementpb.AuthAction_ENABLE, TokenKey: []byte("key")},
	} {
		apply(placement.ChangeAuth(c))
	}
	guard = auth.New(auth.Config{Uptime: func() time.Duration { return 0 }})
	guard.Confirm(0, state.Map().Auth())
	ann, err := guard.Issue(state.Map().Auth(), "ann")
	require.NoError(t, err)
	return guard, ann
}

// Who is nobody may only say who they are: an RPC that is added is refused until it has a rule.
func TestNobodyMayDoNothing(t *testing.T) {
	guard, _ := enabled(t)
	s := New(Config{Auth: guard}, newFakeKV(), newFakeWatches(), newFakeLeases(), &fakeCluster{})
	// These ask in their handlers, or are for everybody.
	others := map[string]bool{
		pb.Auth_Authenticate_FullMethodName: true, pb.Auth_AuthStatus_FullMethodName: true, pb.Auth_UserGet_FullMethodName: true, pb.Auth_RoleGet_FullMethodName: true,
		pb.KV_RangeStream_FullMethodName: true, pb.Watch_Watch_FullMethodName: true, pb.Lease_LeaseKeepAlive_FullMethodName: true,
	}
	requests := map[string]any{
		pb.KV_Range_FullMethodName: &pb.RangeRequest{Key: []byte("k")}, pb.KV_Put_FullMethodName: &pb.PutRequest{Key: []byte("k")},
		pb.KV_DeleteRange_FullMethodName: &pb.DeleteRangeRequest{Key: []byte("k")}, pb.KV_Txn_FullMethodName: &pb.TxnRequest{},
		pb.Lease_LeaseRevoke_FullMethodName: &pb.LeaseRevokeRequest{ID: 1}, pb.Lease_LeaseTimeToLive_FullMethodName: &pb.LeaseTimeToLiveRequest{ID: 1},
		pb.Lease_LeaseLeases_FullMethodName: &pb.LeaseLeasesRequest{}, pb.Maintenance_Alarm_FullMethodName: &pb.AlarmRequest{},
	}
	for _, service := range []grpc.ServiceDesc{
		pb.KV_ServiceDesc, pb.Watch_ServiceDesc, pb.Lease_ServiceDesc, pb.Cluster_ServiceDesc, pb.Maintenance_ServiceDesc, pb.Auth_ServiceDesc,
		{ServiceName: "flotilla.Later", Methods: []grpc.MethodDesc{{MethodName: "Added"}}},
	} {
		for _, m := range service.Methods {
			method := "/" + service.ServiceName + "/" + m.MethodName
			req := requests[method]
			if req == nil {
				req = &emptypb.Empty{}
			}
			require.Equal(t, others[method], s.authorize(context.Background(), method, req) == nil, method)
		}
		for _, m := range service.Streams {
			method := "/" + service.ServiceName + "/" + m.StreamName
			require.Equal(t, others[method], s.authorizeStream(context.Background(), method) == nil, method)
		}
	}
}
