package native_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// as adds the harness's token.
func (h *harness) as(ctx context.Context) context.Context {
	if h.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, h.token)
}

// rule changes users and roles, for root.
func (h *harness) rule(t *testing.T, changes ...*placementpb.ChangeAuth) {
	t.Helper()
	for _, c := range changes {
		m, _ := h.newest()
		if m.Auth().Enabled {
			c.ByUser = placement.Root
		}
		h.change(t, placement.ChangeAuth(c))
		m, _ = h.newest()
		h.guard.Confirm(0, m.Auth())
	}
}

// guarded enables authentication. The stream's user ann reads and writes the keys from o to p, and reads those from r to s.
func guarded(t *testing.T) *harness {
	h := serve(t)
	grant := func(start, end string, access placementpb.Access) *placementpb.ChangeAuth {
		return &placementpb.ChangeAuth{Action: placementpb.AuthAction_ROLE_GRANT, Role: "opener", Permission: &placementpb.Permission{
			Key: []byte(start), RangeEnd: []byte(end), Access: access,
		}}
	}
	h.rule(t,
		&placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_ADD, User: placement.Root, NoPassword: true},
		&placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_GRANT_ROLE, User: placement.Root, Role: placement.Root},
		&placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_ADD, User: "ann", PasswordHash: []byte("h")},
		&placementpb.ChangeAuth{Action: placementpb.AuthAction_ROLE_ADD, Role: "opener"},
		grant("o", "p", placementpb.Access_READWRITE), grant("r", "s", placementpb.Access_READ),
		&placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_GRANT_ROLE, User: "ann", Role: "opener"},
		&placementpb.ChangeAuth{Action: placementpb.AuthAction_ARM},
		&placementpb.ChangeAuth{Action: placementpb.AuthAction_ENABLE, TokenKey: []byte("key")},
	)
	m, _ := h.newest()
	var err error
	h.token, err = h.guard.Issue(m.Auth(), "ann")
	require.NoError(t, err)
	h.routed.attached = map[int64][][]byte{5: {[]byte("o1")}, 6: {[]byte("o1"), []byte("x")}}
	return h
}

func opPut(p *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
}

// V8: each operation needs what its twin of etcd's API needs, here and when it is relayed.
func TestOperationsOfAUser(t *testing.T) {
	h := guarded(t)
	k := func(s string) []byte { return []byte(s) }
	put := func(p *pb.PutRequest) *routerpb.Request { return write(shardpb.Kind_PUT, body(t, p)) }
	transact := func(x *pb.TxnRequest) *routerpb.Request { return write(shardpb.Kind_TXN, body(t, x)) }
	// Whoever carries out this one might take the other key.
	twice := protowire.AppendBytes(protowire.AppendTag(body(t, &pb.PutRequest{Key: k("x")}), 1, protowire.BytesType), k("o1"))
	permitted := []*routerpb.Request{
		put(&pb.PutRequest{Key: k("o1")}), put(&pb.PutRequest{Key: k("o1"), PrevKv: true, Lease: 5}), write(shardpb.Kind_PUT, twice),
		write(shardpb.Kind_DELETE_RANGE, body(t, &pb.DeleteRangeRequest{Key: k("o1"), RangeEnd: k("o2"), PrevKv: true})),
		transact(&pb.TxnRequest{Compare: []*pb.Compare{{Key: k("r1")}}, Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: k("o1")})}}),
		write(shardpb.Kind_CLOSE, nil),
		read(routerpb.Op_OP_RANGE, body(t, &pb.RangeRequest{Key: k("r1")})), read(routerpb.Op_OP_RANGE, body(t, &pb.RangeRequest{Key: k("o"), RangeEnd: k("p")})),
		read(routerpb.Op_OP_FETCH, body(t, &pb.RangeRequest{Key: k("r"), RangeEnd: k("s")})),
		read(routerpb.Op_OP_PROBE, nil), read(routerpb.Op_OP_LEASE_TTL, body(t, &routerpb.LeaseQuery{Lease: 6})),
		read(routerpb.Op_OP_LEASE_KEEPALIVE, body(t, &routerpb.LeaseQuery{Lease: 5})),
	}
	refused := []*routerpb.Request{
		put(&pb.PutRequest{Key: k("x")}), put(&pb.PutRequest{Key: k("r1")}), put(&pb.PutRequest{Key: k("o1"), Lease: 6}),
		write(shardpb.Kind_DELETE_RANGE, body(t, &pb.DeleteRangeRequest{Key: k("o"), RangeEnd: k("q")})),
		write(shardpb.Kind_DELETE_RANGE, body(t, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})),
		transact(&pb.TxnRequest{Compare: []*pb.Compare{{Key: k("x")}}}), transact(&pb.TxnRequest{Failure: []*pb.RequestOp{opPut(&pb.PutRequest{Key: k("r1")})}}),
		transact(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: k("o1"), Lease: 6})}}),
		read(routerpb.Op_OP_RANGE, body(t, &pb.RangeRequest{Key: k("x")})), read(routerpb.Op_OP_RANGE, body(t, &pb.RangeRequest{Key: k("o"), RangeEnd: []byte{0}})),
		read(routerpb.Op_OP_TXN, body(t, &pb.TxnRequest{Compare: []*pb.Compare{{Key: k("x")}}})),
		read(routerpb.Op_OP_FETCH, body(t, &pb.RangeRequest{Key: k("o"), RangeEnd: k("s")})), read(routerpb.Op_OP_FETCH, nil),
		read(routerpb.Op_OP_LEASE_LIST, body(t, &routerpb.LeaseQuery{})),
	}
	all := append(append([]*routerpb.Request{}, permitted...), refused...)
	for _, relay := range []uint64{0, self + 1} {
		for _, r := range all {
			r.Relay = relay
		}
		replies, err := h.exchange(t, &routerpb.Frame{Requests: all})
		require.NoError(t, err)
		for i, r := range replies {
			if i < len(permitted) {
				require.Equal(t, routerpb.Code_OK, r.Code, "%v: %v", all[i], r)
				continue
			}
			require.Equal(t, []any{routerpb.Code_STATUS, uint32(codes.PermissionDenied)}, []any{r.Code, r.Status}, "%v: %v", all[i], r)
		}
	}
	for _, at := range []*replicas{h.replicas, &h.routed.elsewhere} {
		require.Len(t, at.all(), len(permitted))
		for _, req := range at.all() {
			if req.Command.GetKind() == shardpb.Kind_PUT {
				require.NotContains(t, string(req.Command.Body), "x", "what is carried out is what was checked")
			}
		}
	}

	h.token = ""
	for _, r := range all {
		r.Relay = 0
	}
	replies, err := h.exchange(t, &routerpb.Frame{Requests: all})
	require.NoError(t, err)
	for i, r := range replies {
		require.Equal(t, []any{routerpb.Code_STATUS, rpctypes.ErrorDesc(rpctypes.ErrGRPCUserEmpty)}, []any{r.Code, r.Message}, "%v", all[i])
	}
	follow, err := routerpb.NewNativeClient(h.conn).FollowShards(t.Context(), &routerpb.FollowShardsRequest{}, grpc.ForceCodecV2(peer.Codec()))
	require.NoError(t, err)
	_, err = follow.Recv()
	require.ErrorIs(t, err, rpctypes.ErrGRPCUserEmpty)
}

// leased is a node whose shards know leases.
type leased struct{ *replicas }

func (l leased) Read(_ context.Context, req *router.Request) (*router.Reply, error) {
	answer := &routerpb.LeaseStatus{Keys: [][]byte{[]byte("x")}}
	for range req.Message.(*routerpb.LeaseQuery).Leases {
		answer.Ttls = append(answer.Ttls, 30)
	}
	return &router.Reply{Message: answer}, nil
}

// A lease that the user may not renew, or of which that is not known, keeps the others from nothing, and whose keys the user may
// not read are not told.
func TestLeasesOfAUser(t *testing.T) {
	h := guarded(t)
	h.executor = leased{h.replicas}
	h.routed.silent = map[int64]bool{7: true}
	replies, err := h.exchange(t, &routerpb.Frame{Requests: []*routerpb.Request{
		read(routerpb.Op_OP_LEASE_KEEPALIVE, body(t, &routerpb.LeaseQuery{Leases: []int64{6, 5, 7, 6, 5}})),
		read(routerpb.Op_OP_LEASE_KEYS, body(t, &routerpb.LeaseQuery{Lease: 6})),
	}})
	require.NoError(t, err)
	got := &routerpb.LeaseStatus{}
	require.NoError(t, proto.Unmarshal(replies[0].Body, got))
	require.Equal(t, []int64{router.LeaseForbidden, 30, router.LeaseUnknown, router.LeaseForbidden, 30}, got.Ttls)
	require.Equal(t, uint32(codes.PermissionDenied), replies[1].Status)
}

// V8: a feed ends when its user may not read its span any more, whether there is something to tell or not.
func TestAFeedEndsWithItsPermission(t *testing.T) {
	h := guarded(t)
	subscribe := func(end string) (grpc.ServerStreamingClient[routerpb.ChangesFrame], error) {
		return routerpb.NewNativeClient(h.conn).Subscribe(h.as(t.Context()), &routerpb.SubscribeRequest{Shard: 2, From: 5, Start: []byte("o"), End: []byte(end)}, grpc.ForceCodecV2(peer.Codec()))
	}
	requireEnd := func(stream grpc.ServerStreamingClient[routerpb.ChangesFrame]) {
		t.Helper()
		frame, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, uint32(codes.PermissionDenied), frame.Error.GetStatus())
	}
	h.replicas.feed = &told{}
	wide, err := subscribe("q")
	require.NoError(t, err)
	requireEnd(wide)
	stream, err := subscribe("p")
	require.NoError(t, err)
	frame, err := stream.Recv()
	require.NoError(t, err)
	require.NotEmpty(t, frame.Events)
	h.rule(t, &placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_REVOKE_ROLE, User: "ann", Role: "opener"})
	requireEnd(stream)
}
