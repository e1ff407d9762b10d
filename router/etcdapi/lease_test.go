package etcdapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/shard"
)

// fakeLeases keeps leases without time.
type fakeLeases struct {
	mu struct {
		sync.Mutex
		ttls     map[int64]int64
		fails    error              // what every call answers
		held     map[int64]chan any // renewals that wait until the channel is closed
		renewed  chan int64         // IDs as their renewals begin
		together [][]int64          // of each call
		under    int                // renewals under way, and at most
		most     int
	}
}

func newFakeLeases() *fakeLeases {
	f := &fakeLeases{}
	f.mu.ttls, f.mu.held = make(map[int64]int64), make(map[int64]chan any)
	f.mu.renewed = make(chan int64, 4*renewalsMax)
	return f
}

func (f *fakeLeases) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.fails = err
}

func (f *fakeLeases) head() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: 5} }

func (f *fakeLeases) Grant(_ context.Context, req *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := req.ID
	if id == 0 {
		id = 1000
	}
	if f.mu.ttls[id] != 0 {
		return nil, fmt.Errorf("grant: %w", shard.ErrLeaseExists)
	}
	f.mu.ttls[id] = req.TTL
	return &pb.LeaseGrantResponse{Header: f.head(), ID: id, TTL: req.TTL}, f.mu.fails
}

func (f *fakeLeases) Revoke(_ context.Context, req *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.ttls[req.ID] == 0 {
		return nil, fmt.Errorf("revoke: %w", shard.ErrLeaseNotFound)
	}
	delete(f.mu.ttls, req.ID)
	return &pb.LeaseRevokeResponse{Header: f.head()}, f.mu.fails
}

func (f *fakeLeases) KeepAlive(ctx context.Context, leases []int64) ([]int64, *pb.ResponseHeader, error) {
	f.mu.Lock()
	err := f.mu.fails
	f.mu.together = append(f.mu.together, leases)
	f.mu.under += len(leases)
	f.mu.most = max(f.mu.most, f.mu.under)
	var ttls []int64
	var held []chan any
	for _, id := range leases {
		ttls = append(ttls, f.mu.ttls[id])
		if h := f.mu.held[id]; h != nil {
			held = append(held, h)
		}
		f.mu.renewed <- id
	}
	f.mu.Unlock()
	for _, h := range held {
		select {
		case <-h:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.under -= len(leases)
	return ttls, f.head(), err
}

func (f *fakeLeases) TimeToLive(_ context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &pb.LeaseTimeToLiveResponse{Header: f.head(), ID: req.ID, TTL: -1}
	if ttl := f.mu.ttls[req.ID]; ttl != 0 {
		resp.TTL, resp.GrantedTTL = ttl-1, ttl
		if req.Keys {
			resp.Keys = [][]byte{[]byte("foo")}
		}
	}
	return resp, f.mu.fails
}

func (f *fakeLeases) Leases(context.Context, *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &pb.LeaseLeasesResponse{Header: f.head()}
	for id := range f.mu.ttls {
		resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: id})
	}
	slices.SortFunc(resp.Leases, func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
	return resp, f.mu.fails
}

func (f *fakeLeases) LeaseTTLs(context.Context) (map[int64]int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.mu.ttls), f.mu.fails
}

// hold makes renewals of the lease wait until the returned function is called.
func (f *fakeLeases) hold(id int64) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := make(chan any)
	f.mu.held[id] = held
	return func() { close(held) }
}

func TestLeasesThroughClientv3(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	granted, err := f.client.Grant(ctx, 30)
	require.NoError(t, err)
	require.EqualValues(t, 1000, granted.ID)
	require.EqualValues(t, 30, granted.TTL)
	require.EqualValues(t, 0xA1, granted.ResponseHeader.MemberId)

	ttl, err := f.client.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	require.NoError(t, err)
	require.EqualValues(t, 29, ttl.TTL)
	require.EqualValues(t, 30, ttl.GrantedTTL)
	require.Equal(t, [][]byte{[]byte("foo")}, ttl.Keys)
	require.EqualValues(t, 0xC1, ttl.ResponseHeader.ClusterId)
	list, err := f.client.Leases(ctx)
	require.NoError(t, err)
	require.Equal(t, []clientv3.LeaseStatus{{ID: 1000}}, list.Leases)
	require.EqualValues(t, 7, list.ResponseHeader.RaftTerm)
	alive, err := f.client.KeepAliveOnce(ctx, granted.ID)
	require.NoError(t, err)
	require.EqualValues(t, 30, alive.TTL)
	require.EqualValues(t, 5, alive.ResponseHeader.Revision)
	require.EqualValues(t, 0xA1, alive.ResponseHeader.MemberId)
	revoked, err := f.client.Revoke(ctx, granted.ID)
	require.NoError(t, err)
	require.EqualValues(t, 7, revoked.Header.RaftTerm)
	_, metrics := f.get(t, "/metrics")
	for _, name := range []string{"granted", "revoked", "renewed"} {
		require.Contains(t, metrics, "etcd_debugging_lease_"+name+"_total 1\n")
	}
}

// What is not there has a time of its own in two answers, and is an error in the others.
func TestUnknownLeases(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	leases := pb.NewLeaseClient(f.client.ActiveConnection())
	_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 1, TTL: 30})
	require.NoError(t, err)
	_, err = leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 1, TTL: 30})
	requireStatus(t, rpctypes.ErrGRPCLeaseExist, err)
	_, err = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7})
	requireStatus(t, rpctypes.ErrGRPCLeaseNotFound, err)
	ttl, err := leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 7})
	require.NoError(t, err)
	require.EqualValues(t, -1, ttl.TTL)
	_, err = f.client.KeepAliveOnce(ctx, 7)
	require.Equal(t, rpctypes.ErrLeaseNotFound, err)
	renewals, err := f.client.KeepAlive(ctx, 7)
	require.NoError(t, err)
	_, ok := <-renewals
	require.False(t, ok, "the client gives up a lease that has TTL 0")
}

func TestErrorsOfLeases(t *testing.T) {
	f, ctx := newFace(t), t.Context()
	leases := pb.NewLeaseClient(f.client.ActiveConnection())
	f.leases.fail(fmt.Errorf("shard 2: %w", shard.ErrUnavailable))
	_, err := leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 7})
	requireStatus(t, rpctypes.ErrGRPCNoLeader, err)
	_, err = leases.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	requireStatus(t, rpctypes.ErrGRPCNoLeader, err)
	stream, err := leases.LeaseKeepAlive(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: 7}))
	_, err = stream.Recv()
	requireStatus(t, rpctypes.ErrGRPCNoLeader, err)
	f.leases.fail(fmt.Errorf("lease 7: %w", shard.ErrUnknownOutcome))
	_, err = leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 30})
	requireStatus(t, rpctypes.ErrGRPCTimeout, err)
	_, err = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7})
	requireStatus(t, rpctypes.ErrGRPCTimeout, err)
}

// A lease whose shard is slow holds up its answers, not the renewal of others.
func TestKeepAlivesAreAnsweredInOrder(t *testing.T) {
	f := newFace(t)
	for id := range int64(3) {
		_, err := f.leases.Grant(t.Context(), &pb.LeaseGrantRequest{ID: id + 1, TTL: 30 + id})
		require.NoError(t, err)
	}
	release := f.leases.hold(1)
	stream, err := pb.NewLeaseClient(f.client.ActiveConnection()).LeaseKeepAlive(t.Context())
	require.NoError(t, err)
	for _, id := range []int64{1, 2, 3, 2} {
		require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: id}))
	}
	require.NoError(t, stream.CloseSend(), "what was asked is answered all the same")
	for range 4 {
		<-f.leases.mu.renewed
	}
	release()
	for _, id := range []int64{1, 2, 3, 2} {
		resp, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, id, resp.ID)
		require.Equal(t, 29+id, resp.TTL)
	}
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func TestKeepAlivesOfAStreamAreBounded(t *testing.T) {
	f := newFace(t)
	release := f.leases.hold(1)
	stream, err := pb.NewLeaseClient(f.client.ActiveConnection()).LeaseKeepAlive(t.Context())
	require.NoError(t, err)
	for range 2 * renewalsMax {
		require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
	}
	for range renewalsMax {
		<-f.leases.mu.renewed
	}
	release()
	for range 2 * renewalsMax {
		_, err := stream.Recv()
		require.NoError(t, err)
	}
	f.leases.mu.Lock()
	defer f.leases.mu.Unlock()
	require.Equal(t, renewalsMax, f.leases.mu.most)
}

// A client that goes leaves nothing behind: the package's tests check for goroutines.
func TestKeepAliveOfAClientThatLeaves(t *testing.T) {
	f := newFace(t)
	f.leases.hold(1)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := pb.NewLeaseClient(f.client.ActiveConnection()).LeaseKeepAlive(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
	<-f.leases.mu.renewed
	cancel()
	_, err = stream.Recv()
	require.Error(t, err)
	require.Eventually(t, func() bool {
		f.leases.mu.Lock()
		defer f.leases.mu.Unlock()
		return f.leases.mu.under == 0
	}, 10*time.Second, time.Millisecond)
}

func TestGatewayOfLeases(t *testing.T) {
	f := newFace(t)
	post := func(path, body string) map[string]any {
		code, text := f.do(t, http.MethodPost, path, body)
		require.Equal(t, http.StatusOK, code, text)
		var parsed map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &parsed), text)
		return parsed
	}
	granted := post("/v3/lease/grant", `{"TTL":30,"ID":7}`)
	require.Equal(t, "7", granted["ID"])
	require.Equal(t, "30", granted["TTL"])
	alive := post("/v3/lease/keepalive", `{"ID":7}`)["result"].(map[string]any)
	require.Equal(t, "30", alive["TTL"])
	for _, prefix := range []string{"/v3/lease/", "/v3/kv/lease/"} {
		require.Equal(t, []any{map[string]any{"ID": "7"}}, post(prefix+"leases", `{}`)["leases"])
		ttl := post(prefix+"timetolive", `{"ID":7,"keys":true}`)
		require.Equal(t, "29", ttl["TTL"])
		require.Equal(t, []any{"Zm9v"}, ttl["keys"])
		require.Contains(t, post(prefix+"revoke", `{"ID":7}`), "header")
		post("/v3/lease/grant", `{"TTL":30,"ID":7}`)
	}
	code, text := f.do(t, http.MethodPost, "/v3/lease/revoke", `{"ID":8}`)
	require.Equal(t, http.StatusNotFound, code)
	var failure struct{ Message string }
	require.NoError(t, json.Unmarshal([]byte(text), &failure))
	require.Equal(t, "etcdserver: requested lease not found", failure.Message)
}
