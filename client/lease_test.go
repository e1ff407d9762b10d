package client_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// lessor is a node as a client sees it that answers what is asked about leases with one error after the other.
type lessor struct {
	routerpb.UnimplementedNativeServer
	pb.UnimplementedLeaseServer
	answers chan error
}

func (l *lessor) FollowShards(_ *routerpb.FollowShardsRequest, stream grpc.ServerStreamingServer[routerpb.ShardsUpdate]) error {
	if err := stream.Send(&routerpb.ShardsUpdate{Version: 1, ClusterId: 1, Whole: true, Shards: []*shardpb.Descriptor{{ShardId: 2}}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func (l *lessor) LeaseGrant(context.Context, *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return nil, <-l.answers
}

func (l *lessor) LeaseRevoke(context.Context, *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	return nil, <-l.answers
}

// X1: a refusal says nothing about the attempt before it, whose answer was lost.
func TestARefusalAfterALostAnswerIsNoRefusal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	node := &lessor{answers: make(chan error, 2)}
	server := grpc.NewServer(grpc.ForceServerCodecV2(peer.Codec()))
	routerpb.RegisterNativeServer(server, node)
	pb.RegisterLeaseServer(server, node)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	cl, err := client.New(client.Config{Endpoints: []string{l.Addr().String()}})
	require.NoError(t, err)
	t.Cleanup(func() {
		cl.Close()
		server.Stop()
		require.NoError(t, <-served)
	})
	lost, refused := status.Error(codes.Unavailable, "etcdserver: stopping"), rpctypes.ErrGRPCRequestTooManyRequests
	var unknown *client.UnknownOutcomeError

	node.answers <- refused
	err = cl.Revoke(t.Context(), 7)
	require.ErrorIs(t, err, shard.ErrOverloaded)
	require.NotErrorAs(t, err, &unknown)

	node.answers <- lost
	node.answers <- refused
	err = cl.Revoke(t.Context(), 7)
	require.ErrorAs(t, err, &unknown)
	require.ErrorIs(t, err, shard.ErrOverloaded) // what to do about it is the same

	node.answers <- lost
	node.answers <- refused
	_, err = cl.Grant(t.Context(), 1)
	require.ErrorAs(t, err, &unknown)

	node.answers <- lost
	node.answers <- rpctypes.ErrGRPCLeaseNotFound
	require.NoError(t, cl.Revoke(t.Context(), 7), "the first attempt has revoked it")
}
