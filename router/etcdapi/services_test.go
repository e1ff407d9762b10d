package etcdapi

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/flotilla-kv/flotilla/shard"
)

func TestStatus(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	st, err := f.client.Status(ctx, f.addr)
	require.NoError(t, err)
	require.Equal(t, "3.7.3", st.Version)
	require.Equal(t, "3.7.0", st.StorageVersion)
	require.EqualValues(t, 42, st.Header.Revision)
	require.EqualValues(t, 0xA1, st.Leader)
	require.EqualValues(t, 7, st.RaftTerm)
	require.EqualValues(t, 11, st.RaftIndex)
	require.EqualValues(t, 4096, st.DbSize)
	require.NotNil(t, st.DowngradeInfo)
	require.Empty(t, st.Errors)

	f.cluster.setLeaderless(true)
	require.NoError(t, f.cluster.RaiseAlarm(ctx, &pb.AlarmMember{MemberID: 0xA1, Alarm: pb.AlarmType_NOSPACE}))
	st, err = f.client.Status(ctx, f.addr)
	require.NoError(t, err, "Status needs no leader")
	require.Len(t, st.Errors, 2)
	require.Equal(t, "etcdserver: no leader", st.Errors[0])
	require.Contains(t, st.Errors[1], "NOSPACE")
}

func TestHash(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	kv, err := f.client.HashKV(ctx, f.addr, 9)
	require.NoError(t, err)
	require.EqualValues(t, 77, kv.Hash)
	require.EqualValues(t, 9, kv.HashRevision)
	require.EqualValues(t, -1, kv.CompactRevision)
	require.EqualValues(t, 0xC1, kv.Header.ClusterId)
	hash, err := pb.NewMaintenanceClient(f.client.ActiveConnection()).Hash(ctx, &pb.HashRequest{})
	require.NoError(t, err)
	require.EqualValues(t, 77, hash.Hash)
	require.EqualValues(t, 0xA1, hash.Header.MemberId)
	for err, want := range map[error]error{shard.ErrCompacted: rpctypes.ErrCompacted, shard.ErrFutureRevision: rpctypes.ErrFutureRev} {
		f.kv.failNext(err)
		_, err := f.client.HashKV(ctx, f.addr, 9)
		require.ErrorIs(t, err, want)
	}
}

func TestAlarms(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	maintenance := pb.NewMaintenanceClient(f.client.ActiveConnection())
	alarm := func(action pb.AlarmRequest_AlarmAction, kind pb.AlarmType) []*pb.AlarmMember {
		resp, err := maintenance.Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: 0xA1, Alarm: kind})
		require.NoError(t, err)
		require.EqualValues(t, 0xC1, resp.Header.ClusterId)
		return resp.Alarms
	}
	require.Empty(t, alarm(pb.AlarmRequest_GET, pb.AlarmType_NONE))
	require.Empty(t, alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE), "clearing nothing is fine")
	require.Empty(t, alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NONE))
	require.Empty(t, alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NONE))

	require.Len(t, alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE), 1)
	require.Len(t, alarm(pb.AlarmRequest_GET, pb.AlarmType_NONE), 1)
	require.Len(t, alarm(pb.AlarmRequest_GET, pb.AlarmType_NOSPACE), 1)
	require.Empty(t, alarm(pb.AlarmRequest_GET, pb.AlarmType_CORRUPT))

	disarmed, err := f.client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	require.NoError(t, err)
	require.Len(t, disarmed.Alarms, 1)
	require.Empty(t, alarm(pb.AlarmRequest_GET, pb.AlarmType_NONE))

	_, err = maintenance.Alarm(ctx, &pb.AlarmRequest{Action: 9})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestMemberList(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	list, err := f.client.MemberList(ctx)
	require.NoError(t, err)
	require.Len(t, list.Members, 1)
	require.Zero(t, list.Header.Revision, "membership has no revision")
	require.EqualValues(t, 0xA1, list.Header.MemberId)
	require.NoError(t, f.client.Sync(ctx))
	require.Equal(t, []string{"http://127.0.0.1:2379"}, f.client.Endpoints())
}

// What etcd's tools ask of members is done where it means something, and refused with what
// to do instead where not.
func TestMembersChange(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	_, err := f.client.MemberAdd(ctx, []string{"http://127.0.0.1:2390"})
	require.ErrorContains(t, err, "flotilla node join prints the command")
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	_, err = f.client.MemberAdd(ctx, []string{"http://127.0.0.1:2380"})
	require.Equal(t, rpctypes.ErrPeerURLExist, err)
	for _, urls := range [][]string{nil, {""}, {"n4:2380"}, {"http://n4"}, {"http://n4:2380/path"}, {"ftp://n4:2380"}, {"http://n4:2380", "bad"}} {
		_, err = pb.NewClusterClient(f.client.ActiveConnection()).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: urls})
		requireStatus(t, rpctypes.ErrGRPCMemberBadURLs, err)
	}

	_, err = f.client.MemberUpdate(ctx, 0xA1, []string{"http://127.0.0.1:2390"})
	require.ErrorContains(t, err, "flotilla node decommission n1")
	updated, err := f.client.MemberUpdate(ctx, 0xA1, []string{"http://127.0.0.1:2380"})
	require.NoError(t, err)
	require.Len(t, updated.Members, 1)
	_, err = f.client.MemberUpdate(ctx, 7, []string{"http://127.0.0.1:2380"})
	require.Equal(t, rpctypes.ErrMemberNotFound, err)

	_, err = f.client.MemberPromote(ctx, 0xA1)
	require.Equal(t, rpctypes.ErrMemberNotLearner, err)
	_, err = f.client.MemberPromote(ctx, 7)
	require.Equal(t, rpctypes.ErrMemberNotFound, err)

	removed, err := f.client.MemberRemove(ctx, 0xA1)
	require.NoError(t, err)
	require.Len(t, removed.Members, 1)
	_, err = f.client.MemberRemove(ctx, 7)
	require.Equal(t, rpctypes.ErrMemberNotFound, err)

	_, err = f.client.MoveLeader(ctx, 0xA1)
	require.NoError(t, err)
	_, err = f.client.MoveLeader(ctx, 7)
	require.Equal(t, rpctypes.ErrBadLeaderTransferee, err)
}

func TestErrorsOfTheCluster(t *testing.T) {
	s := New(Config{}, newFakeKV(), newFakeWatches(), newFakeLeases(), &fakeCluster{err: errors.Join(shard.ErrUnavailable, errors.New("meta group"))})
	_, err := (&clusterServer{Server: s}).MemberList(t.Context(), &pb.MemberListRequest{})
	require.Equal(t, rpctypes.ErrGRPCNoLeader, err)
	_, err = (&maintenanceServer{Server: s}).Status(t.Context(), &pb.StatusRequest{})
	require.Equal(t, rpctypes.ErrGRPCNoLeader, err)
}

func TestDefragmentIsHarmless(t *testing.T) {
	f := newFace(t)
	_, err := f.client.Defragment(t.Context(), f.addr)
	require.NoError(t, err)
}

func TestHealthService(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	health := healthpb.NewHealthClient(f.client.ActiveConnection())
	resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, resp.Status)
	list, err := health.List(ctx, &healthpb.HealthListRequest{})
	require.NoError(t, err)
	require.Contains(t, list.Statuses, "")

	watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	now, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, now.Status)
	f.server.Drain()
	now, err = watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, now.Status)
}

func TestEveryOtherRPCIsRefusedByName(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	served := map[string]bool{
		"KV.Range": true, "KV.RangeStream": true, "KV.Put": true, "KV.DeleteRange": true, "KV.Txn": true, "KV.Compact": true,
		"Maintenance.Status": true, "Maintenance.Alarm": true, "Maintenance.Defragment": true,
		"Maintenance.Hash": true, "Maintenance.HashKV": true, "Maintenance.MoveLeader": true, "Maintenance.Snapshot": true,
		"Cluster.MemberList": true, "Cluster.MemberAdd": true, "Cluster.MemberRemove": true, "Cluster.MemberUpdate": true, "Cluster.MemberPromote": true, "Watch.Watch": true,
		"Lease.LeaseGrant": true, "Lease.LeaseRevoke": true, "Lease.LeaseKeepAlive": true, "Lease.LeaseTimeToLive": true, "Lease.LeaseLeases": true,
		"Auth.AuthStatus": true, "Auth.AuthDisable": true, "Auth.Authenticate": true, "Auth.UserList": true, "Auth.RoleList": true,
	}
	for _, m := range pb.Auth_ServiceDesc.Methods { // refused by TestNobodyIsAuthenticated
		served["Auth."+m.MethodName] = true
	}
	conn := f.client.ActiveConnection()
	names := map[string]string{"/v3lockpb.Lock/TryLock": "Lock.TryLock", "/no.such/Thing": "such.Thing"}
	for _, service := range []grpc.ServiceDesc{
		pb.KV_ServiceDesc, pb.Watch_ServiceDesc, pb.Lease_ServiceDesc, pb.Cluster_ServiceDesc, pb.Maintenance_ServiceDesc, pb.Auth_ServiceDesc,
	} {
		for _, m := range service.Methods {
			names["/"+service.ServiceName+"/"+m.MethodName] = rpcName(service.ServiceName + "/" + m.MethodName)
		}
		for _, m := range service.Streams {
			names["/"+service.ServiceName+"/"+m.StreamName] = rpcName(service.ServiceName + "/" + m.StreamName)
		}
	}
	for method, name := range names {
		if served[name] {
			continue
		}
		err := conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
		requireStatus(t, status.Errorf(codes.Unimplemented, "flotilla: %s is not implemented", name), err)
	}
}

// Who is configured with a user can work with a store that has none, as with an etcd without authentication.
func TestNobodyIsAuthenticated(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{f.addr}, Username: "root", Password: "secret"})
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	_, err = client.Put(ctx, "k", "v")
	require.NoError(t, err)
	status, err := client.AuthStatus(ctx)
	require.NoError(t, err)
	require.False(t, status.Enabled)
	require.EqualValues(t, 1, status.AuthRevision)
	require.EqualValues(t, 0xC1, status.Header.ClusterId)
	users, err := client.UserList(ctx)
	require.NoError(t, err)
	require.Empty(t, users.Users)
	roles, err := client.RoleList(ctx)
	require.NoError(t, err)
	require.Empty(t, roles.Roles)
	_, err = client.AuthDisable(ctx)
	require.NoError(t, err)
	_, err = client.AuthEnable(ctx)
	require.ErrorContains(t, err, "flotilla: Auth.AuthEnable is not implemented")
	_, err = client.Authenticate(ctx, "root", "secret")
	require.Equal(t, rpctypes.ErrAuthNotEnabled, err)
}

func TestRequireLeader(t *testing.T) {
	f := newFace(t)
	ctx := clientv3.WithRequireLeader(t.Context())
	_, err := f.client.Put(ctx, "k", "v")
	require.NoError(t, err)

	f.cluster.setLeaderless(true)
	_, err = f.client.Put(ctx, "k", "v")
	require.Equal(t, rpctypes.ErrNoLeader, err)
	stream, err := pb.NewKVClient(f.client.ActiveConnection()).RangeStream(ctx, &pb.RangeRequest{Key: []byte("k")})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, rpctypes.ErrNoLeader, rpctypes.Error(err))
	_, err = f.client.Put(t.Context(), "k", "v")
	require.NoError(t, err, "who does not ask for a leader is served")
}

// gRPC's own package for it must not be imported here: that would make it known to the server, too.
func TestCompressedRequests(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	conn, compressed := f.client.ActiveConnection(), grpc.UseCompressor("gzip")
	kv, value := pb.NewKVClient(conn), make([]byte, 100_000)
	_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: value}, compressed)
	require.NoError(t, err)
	got, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}, compressed)
	require.NoError(t, err)
	require.Equal(t, value, got.Kvs[0].Value)
	_, err = kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3<<20)}, compressed)
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "what counts is the size that it has in memory")
	watch, err := pb.NewWatchClient(conn).Watch(ctx, compressed)
	require.NoError(t, err)
	require.NoError(t, watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}))
	created, err := watch.Recv()
	require.NoError(t, err)
	require.True(t, created.Created)
}

func TestClientAPIVersion(t *testing.T) {
	s := New(Config{}, newFakeKV(), newFakeWatches(), newFakeLeases(), &fakeCluster{})
	// gRPC's own client refuses to send such bytes.
	with := func(version string) context.Context {
		return metadata.NewIncomingContext(t.Context(), metadata.Pairs(rpctypes.MetadataClientAPIVersionKey, version))
	}
	require.NoError(t, s.admit(with("3.7")))
	require.Equal(t, rpctypes.ErrGRPCInvalidClientAPIVersion, s.admit(with("\xff")))
}

func TestPanicsAreNotHidden(t *testing.T) {
	s := New(Config{}, newFakeKV(), newFakeWatches(), newFakeLeases(), &fakeCluster{})
	require.Panics(t, func() {
		_, _ = s.interceptUnary(t.Context(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) {
			panic("broken invariant")
		})
	})
}

// Alerts that were written for etcd find what they look at.
func TestMetricsOfState(t *testing.T) {
	f := newFace(t)
	_, metrics := f.get(t, "/metrics")
	for _, line := range []string{
		"etcd_server_has_leader 1", "etcd_server_is_leader 1", "etcd_mvcc_db_total_size_in_bytes 4096", "etcd_mvcc_db_total_size_in_use_in_bytes 1024",
		`etcd_server_version{server_version="3.7.3"} 1`, `etcd_cluster_version{cluster_version="3.7"} 1`,
	} {
		require.Contains(t, metrics, line+"\n")
	}
	f.cluster.setLeaderless(true)
	_, metrics = f.get(t, "/metrics")
	require.Contains(t, metrics, "etcd_server_has_leader 0\n")
}

func TestRPCMetrics(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	put := prometheus.Labels{"grpc_type": "unary", "grpc_service": "etcdserverpb.KV", "grpc_method": "Put"}
	value := func(name string, labels prometheus.Labels) float64 {
		families, err := f.registry.Gather()
		require.NoError(t, err)
		for _, family := range families {
			for _, m := range family.GetMetric() {
				match := family.GetName() == name && len(m.GetLabel()) == len(labels)
				for _, l := range m.GetLabel() {
					match = match && labels[l.GetName()] == l.GetValue()
				}
				if match {
					return m.GetCounter().GetValue()
				}
			}
		}
		return -1
	}
	_, err := f.client.Put(ctx, "k", "v")
	require.NoError(t, err)
	_, err = f.client.Put(ctx, "", "v")
	require.Error(t, err)
	require.InDelta(t, 2, value("grpc_server_started_total", put), 0)
	put["grpc_code"] = "InvalidArgument"
	require.InDelta(t, 1, value("grpc_server_handled_total", put), 0)
}
