package etcdapi

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/internal/bubble"
)

// keepAliveStream is a stream without a network, so that a test can have its own time.
type keepAliveStream struct {
	pb.Lease_LeaseKeepAliveServer
	ctx      context.Context
	requests chan int64
	answers  []int64 // the leases of
}

func (s *keepAliveStream) Context() context.Context { return s.ctx }

func (s *keepAliveStream) Recv() (*pb.LeaseKeepAliveRequest, error) {
	id, ok := <-s.requests
	if !ok {
		return nil, io.EOF
	}
	return &pb.LeaseKeepAliveRequest{ID: id}, nil
}

func (s *keepAliveStream) SendMsg(m any) error {
	s.answers = append(s.answers, m.(*pb.LeaseKeepAliveResponse).ID)
	return nil
}

// Leases that are named while others are being renewed are renewed together after them,
// and do not wait for long.
func TestKeepAlivesAreRenewedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := newFakeLeases()
		s := &leaseServer{Server: New(Config{Registerer: prometheus.NewRegistry()}, newFakeKV(), newFakeWatches(), leases, &fakeCluster{})}
		release := leases.hold(1)
		stream := &keepAliveStream{ctx: t.Context(), requests: make(chan int64)}
		ended := make(chan error)
		go func() { ended <- s.LeaseKeepAlive(stream) }()
		var sent []int64
		name := func(from, to int64) {
			for id := from; id <= to; id++ {
				stream.requests <- id
				sent = append(sent, id)
			}
			synctest.Wait()
		}
		name(1, 1)
		name(2, 50)
		require.Len(t, leases.mu.renewed, 1)
		bubble.Pass(renewalPatience)
		synctest.Wait()
		require.Len(t, leases.mu.renewed, 50, "the first does not hold up the others")
		name(51, 60)
		require.Empty(t, stream.answers, "its answer comes first all the same")
		release()
		close(stream.requests)
		require.NoError(t, <-ended)
		require.Equal(t, sent, stream.answers)
		require.Len(t, leases.mu.renewed, 60)
		require.Equal(t, [][]int64{sent[:1], sent[1:50], sent[50:]}, leases.mu.together)
	})
}

// silentLease has keys in a shard that does not answer.
const silentLease = 2

type partlySilent struct{ *fakeLeases }

func (p partlySilent) TimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	if req.ID == silentLease {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return p.fakeLeases.TimeToLive(ctx, req)
}

// A lease of which nobody can tell who may renew it does not keep the others from being renewed and answered, and ends the stream
// with an error after which clients try again.
func TestALeaseThatIsNotKnownKeepsNoOtherFromBeingRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard, token := enabled(t)
		leases := partlySilent{newFakeLeases()}
		s := &leaseServer{Server: New(Config{Registerer: prometheus.NewRegistry(), Auth: guard}, newFakeKV(), newFakeWatches(), leases, &fakeCluster{})}
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(rpctypes.TokenFieldNameGRPC, token))
		stream := &keepAliveStream{ctx: ctx, requests: make(chan int64, 3)}
		for _, id := range []int64{silentLease, 1, 3} {
			stream.requests <- id
		}
		close(stream.requests)
		require.Equal(t, codes.Unavailable, status.Code(s.LeaseKeepAlive(stream)))
		require.Len(t, leases.mu.renewed, 2)
		require.Equal(t, []int64{1, 3}, stream.answers)
	})
}
