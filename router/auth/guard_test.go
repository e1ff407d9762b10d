package auth_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/auth"
)

// world is a guard with its clocks and the table that it is told of.
type world struct {
	t      *testing.T
	state  *placement.State
	uptime time.Duration
	now    time.Time
	guard  *auth.Guard
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, state: placement.NewState(), now: time.Unix(1_800_000_000, 0)}
	w.guard = auth.New(auth.Config{Uptime: func() time.Duration { return w.uptime }, Now: func() time.Time { return w.now }})
	node := &placementpb.Node{NodeId: 1, Name: "n1", PeerAddr: "n1:1", Incarnation: []byte("d")}
	w.apply(&placementpb.Command{Body: &placementpb.Command_InitCluster{InitCluster: &placementpb.InitCluster{
		ClusterId: 1, ReplicationFactor: 1, Nodes: []*placementpb.Node{node},
	}}})
	for _, c := range []*placementpb.ChangeAuth{
		{Action: placementpb.AuthAction_USER_ADD, User: "root", NoPassword: true},
		{Action: placementpb.AuthAction_USER_GRANT_ROLE, User: "root", Role: "root"},
		{Action: placementpb.AuthAction_USER_ADD, User: "bob", PasswordHash: []byte("h")},
		{Action: placementpb.AuthAction_ROLE_ADD, Role: "r"},
		{Action: placementpb.AuthAction_USER_GRANT_ROLE, User: "bob", Role: "r"},
		{Action: placementpb.AuthAction_ROLE_GRANT, Role: "r", Permission: &placementpb.Permission{Key: []byte("a"), RangeEnd: []byte("c"), Access: placementpb.Access_READWRITE}},
		{Action: placementpb.AuthAction_ROLE_GRANT, Role: "r", Permission: &placementpb.Permission{Key: []byte("c"), RangeEnd: []byte("e"), Access: placementpb.Access_READ}},
	} {
		w.change(c)
	}
	return w
}

func (w *world) apply(c *placementpb.Command) {
	w.t.Helper()
	require.NoError(w.t, placement.ResultError(w.state.Apply(c)))
	require.NoError(w.t, w.state.Audit())
}

func (w *world) change(c *placementpb.ChangeAuth) {
	w.t.Helper()
	if w.state.Map().Auth().Enabled {
		c.ByUser = "root"
	}
	w.apply(placement.ChangeAuth(c))
	w.guard.Learn(w.state.Map().Auth())
}

func (w *world) enable() {
	w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_ARM})
	w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_ENABLE, TokenKey: []byte("key")})
	w.confirm()
}

func (w *world) confirm() { w.guard.Confirm(w.uptime, w.state.Map().Auth()) }

func (w *world) caller(token string) *auth.Caller {
	return w.guard.Caller(w.t.Context(), func(name string) []string {
		if name == rpctypes.TokenFieldNameGRPC && token != "" {
			return []string{token}
		}
		return nil
	})
}

func (w *world) token(user string) string {
	w.t.Helper()
	token, err := w.guard.Issue(w.state.Map().Auth(), user)
	require.NoError(w.t, err)
	return token
}

func TestPermissions(t *testing.T) {
	w := newWorld(t)
	require.True(t, w.guard.Open())
	require.NoError(t, w.caller("").Root())
	w.enable()
	require.False(t, w.guard.Open())
	require.Equal(t, rpctypes.ErrGRPCUserEmpty, w.caller("").User())
	require.Equal(t, rpctypes.ErrGRPCInvalidAuthToken, w.caller("nonsense").User())
	bob, root := w.caller(w.token("bob")), w.caller(w.token("root"))
	require.NoError(t, root.Root())
	require.NoError(t, root.Write([]byte("z"), []byte{0}))
	require.Equal(t, rpctypes.ErrGRPCPermissionDenied, bob.Root())
	for _, c := range []struct {
		key, end    string
		read, write bool
	}{
		{"a", "", true, true}, {"a", "c", true, true}, {"b", "d", true, false}, {"a", "e", true, false}, {"c", "", true, false},
		{"a", "f", false, false}, {"a", "\x00", false, false}, {"\x00", "\x00", false, false}, {"d", "", true, false}, {"e", "", false, false}, {"", "b", false, false},
	} {
		require.Equal(t, c.read, bob.Read([]byte(c.key), []byte(c.end)) == nil, "read %q to %q", c.key, c.end)
		require.Equal(t, c.write, bob.Write([]byte(c.key), []byte(c.end)) == nil, "write %q to %q", c.key, c.end)
	}
}

func TestNestedTransactionsAreChecked(t *testing.T) {
	w := newWorld(t)
	w.enable()
	bob := w.caller(w.token("bob"))
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("z")}}}
	inner := &pb.TxnRequest{Failure: []*pb.RequestOp{put}}
	outer := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}}}}
	for _, req := range []*pb.TxnRequest{inner, outer, {Compare: []*pb.Compare{{Key: []byte("z")}}}} {
		n := auth.Needs{Caller: bob}
		require.Equal(t, rpctypes.ErrGRPCPermissionDenied, n.Txn(req))
	}
}

// A node that is cut off stops to permit anything.
func TestOldCopiesAreNotTrusted(t *testing.T) {
	w := newWorld(t)
	w.enable()
	bob := w.caller(w.token("bob"))
	w.uptime += auth.Trust
	require.NoError(t, bob.User())
	w.uptime++
	require.Equal(t, codes.Unavailable, status.Code(bob.User()))
	w.confirm()
	require.NoError(t, bob.User())

	sealed := auth.New(auth.Config{Sealed: true})
	sealed.Learn(w.state.Map().Auth())
	require.Equal(t, codes.Unavailable, status.Code(sealed.Of(t.Context()).User()))
}

func TestTokensEnd(t *testing.T) {
	w := newWorld(t)
	w.enable()
	token := w.token("bob")
	stream := w.caller(token)
	require.NoError(t, stream.User())
	w.now = w.now.Add(auth.DefaultTTL)
	require.Equal(t, rpctypes.ErrGRPCInvalidAuthToken, w.caller(token).User())
	require.NoError(t, stream.User(), "a stream outlives its token")
	token = w.token("bob")
	w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_PASSWORD, User: "bob", PasswordHash: []byte("other")})
	require.Equal(t, rpctypes.ErrGRPCInvalidAuthToken, w.caller(token).User())
	require.Equal(t, rpctypes.ErrGRPCInvalidAuthToken, stream.User(), "and not its password")
}

// Whoever confirms may have read the table before a change that the guard has learned of since, also while it was sealed.
func TestTheGuardNeverGoesBack(t *testing.T) {
	w := newWorld(t)
	before := w.state.Map().Auth()
	w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_ARM})
	armed := w.state.Map().Auth()
	sealed := auth.New(auth.Config{Sealed: true})
	sealed.Learn(armed)
	sealed.Confirm(0, before)
	require.False(t, sealed.Open(), "it would serve everybody once it is cut off")

	w.enable()
	permitted := w.state.Map().Auth()
	bob := w.caller(w.token("bob"))
	require.NoError(t, bob.Read([]byte("a"), nil))
	w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_REVOKE_ROLE, User: "bob", Role: "r"})
	w.guard.Confirm(w.uptime, permitted)
	require.Equal(t, rpctypes.ErrGRPCPermissionDenied, bob.Read([]byte("a"), nil))
}

// attached are the keys of leases. Those of a lease without an entry are in a shard that does not answer.
type attached map[int64]string

func (a attached) TimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	key, ok := a[req.ID]
	if !ok {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return &pb.LeaseTimeToLiveResponse{Keys: [][]byte{[]byte(key)}}, nil
}

func (attached) Leases(context.Context, *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	return &pb.LeaseLeasesResponse{}, nil
}

// Each lease has its own outcome, however many there are of which nothing is known, and soon enough for the others.
func TestRenewableLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.enable()
		leases := []int64{1, 1}
		for id := range int64(200) {
			leases = append(leases, 10+id)
		}
		leases = append(leases, 300, 301)
		began := time.Now()
		bob := w.caller(w.token("bob"))
		why, err := bob.Renewable(t.Context(), attached{1: "a", 300: "x", 301: "b"}, leases)
		require.NoError(t, err)
		require.Less(t, time.Since(began), 2*time.Second) // in the bubble's time
		require.Len(t, why, 203)
		require.NoError(t, why[1])
		require.ErrorIs(t, why[10], context.DeadlineExceeded)
		require.Equal(t, rpctypes.ErrGRPCPermissionDenied, why[300])
		require.NoError(t, why[301])
		w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_USER_DELETE, User: "bob"})
		_, err = bob.Renewable(t.Context(), attached{}, leases[:1])
		require.Equal(t, rpctypes.ErrGRPCInvalidAuthToken, err)
	})
}

// Whoever gives no password is served until authentication is enabled, but not by a node that cannot tell.
func TestNobody(t *testing.T) {
	w := newWorld(t)
	logins := auth.NewLogins(w.guard, auth.NewPasswords(0))
	w.change(&placementpb.ChangeAuth{Action: placementpb.AuthAction_ARM})
	require.Equal(t, codes.Unavailable, status.Code(logins.Nobody()))
	w.confirm()
	require.NoError(t, logins.Nobody())
	w.enable()
	require.Equal(t, rpctypes.ErrGRPCUserEmpty, logins.Nobody())
}
