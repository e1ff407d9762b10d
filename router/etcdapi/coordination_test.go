package etcdapi

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/etcdapi/v3electionpb"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3lockpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// What locks and elections do with watches is shown on whole nodes; here is what goes in
// and out.
func TestLockWithoutWaiting(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	locks := v3lockpb.NewLockClient(f.client.ActiveConnection())
	locked, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("name"), Lease: 0x1f})
	require.NoError(t, err)
	require.Equal(t, "name/1f", string(locked.Key))
	require.EqualValues(t, 0xC1, locked.Header.ClusterId)
	require.EqualValues(t, 0xA1, locked.Header.MemberId)
	require.EqualValues(t, 7, locked.Header.RaftTerm)
	require.EqualValues(t, 1, locked.Header.Revision)
	unlocked, err := locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: locked.Key})
	require.NoError(t, err)
	require.EqualValues(t, 0xC1, unlocked.Header.ClusterId)

	own, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("name")})
	require.NoError(t, err)
	require.Equal(t, "name/3e8", string(own.Key), "under a lease made for it")
}

// As in etcd, the texts are those of the recipes' own requests, and the code is Unknown.
func TestErrorsOfCoordination(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	locks := v3lockpb.NewLockClient(f.client.ActiveConnection())
	elections := v3electionpb.NewElectionClient(f.client.ActiveConnection())
	const missing = `"leader" field must be provided`
	_, err := elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{})
	requireStatus(t, status.Error(codes.Unknown, missing), err)
	_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{})
	requireStatus(t, status.Error(codes.Unknown, missing), err)
	_, err = elections.Leader(ctx, &v3electionpb.LeaderRequest{Name: []byte("name")})
	requireStatus(t, status.Error(codes.Unknown, "election: no leader"), err)
	f.kv.failNext(shard.ErrLeaseNotFound)
	_, err = locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("name"), Lease: 9})
	requireStatus(t, status.Error(codes.Unknown, rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseNotFound)), err)
}

func TestGatewayOfCoordination(t *testing.T) {
	f := newFace(t)
	post := func(path, body string) (int, map[string]any) {
		code, text := f.do(t, http.MethodPost, path, body)
		var parsed map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &parsed), text)
		return code, parsed
	}
	name := base64.StdEncoding.EncodeToString([]byte("name"))
	code, locked := post("/v3/lock/lock", `{"name":"`+name+`","lease":"31"}`)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte("name/1f")), locked["key"])
	require.Equal(t, map[string]any{"cluster_id": "193", "member_id": "161", "revision": "1", "raft_term": "7"}, locked["header"])
	code, _ = post("/v3/lock/unlock", `{"key":"`+name+`"}`)
	require.Equal(t, http.StatusOK, code)
	code, campaign := post("/v3/election/campaign", `{"name":"`+name+`","lease":"31","value":"`+name+`"}`)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, map[string]any{"name": name, "key": base64.StdEncoding.EncodeToString([]byte("name/1f")), "rev": "1", "lease": "31"}, campaign["leader"])
	resp, err := f.http.Post("http://"+f.addr+"/v3/lock/unlock", "application/json", strings.NewReader(`{"key":"`+name+`"}`))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "application/grpc", resp.Header.Get("Grpc-Metadata-Content-Type"), "as with generated routes")
	for _, tc := range []struct {
		path, body, message string
		code                int
	}{
		{"/v3/election/proclaim", `{}`, `"leader" field must be provided`, http.StatusInternalServerError},
		{"/v3/election/resign", ``, `"leader" field must be provided`, http.StatusInternalServerError},
		{"/v3/election/leader", `{"name":"` + name + `"}`, "election: no leader", http.StatusInternalServerError},
		{"/v3/lock/lock", `{"name":`, "unexpected EOF", http.StatusBadRequest},
		{"/v3/election/observe", `{"name":`, "unexpected EOF", http.StatusBadRequest},
	} {
		code, got := post(tc.path, tc.body)
		require.Equal(t, tc.code, code, tc.path)
		require.Equal(t, tc.message, got["message"], tc.path)
	}
}
