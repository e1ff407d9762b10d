package node

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/exec"
	"github.com/flotilla-kv/flotilla/router/peer"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// peerServer answers the other nodes. It is reachable before the node is part of a
// cluster; everything but Hello is refused until then.
type peerServer struct {
	routerpb.UnimplementedPeerServer
	node *Node
}

// ready reports whether the node is ready to serve peers.
func (s *peerServer) ready() error {
	if !s.node.started.Load() {
		return status.Error(codes.Unavailable, "node is starting")
	}
	return nil
}

// Exchange implements routerpb.PeerServer.
func (s *peerServer) Exchange(stream grpc.BidiStreamingServer[routerpb.Frame, routerpb.Frame]) error {
	if err := s.ready(); err != nil {
		return err
	}
	return peer.Serve(context.Background(), stream, exec.Bounded{
		Executor: exec.New(s.node.host, s.node.space.refusal), Answers: s.node.toNodes, Stream: stream.Context(),
	}, s.node.hlc)
}

// Subscribe implements routerpb.PeerServer.
func (s *peerServer) Subscribe(req *routerpb.SubscribeRequest, stream grpc.ServerStreamingServer[routerpb.ChangesFrame]) error {
	if err := s.ready(); err != nil {
		return err
	}
	return peer.ServeSubscribe(req, stream, exec.New(s.node.host, s.node.space.refusal), s.node.hlc)
}

// Hello implements routerpb.PeerServer. A node that is about to stop does not answer, so that it
// counts as gone already, and nobody gives it leadership.
func (s *peerServer) Hello(_ context.Context, req *routerpb.HelloRequest) (*routerpb.HelloReply, error) {
	n := s.node
	if n.leaving.Load() {
		return nil, status.Error(codes.Unavailable, "node is stopping")
	}
	reply := &routerpb.HelloReply{
		Name: n.cfg.Name, PeerAddr: n.cfg.PeerAddr, Incarnation: n.identity.Incarnation, Identity: n.foundingJSON(),
		ClockUnixMicros: n.cfg.Clock.Now().UnixMicro(), Join: n.cfg.Join, BootstrapExpect: uint32(n.cfg.BootstrapExpect),
		HighestRevision: int64(n.hlc.Seen()), DiskLow: n.space.low(),
	}
	if n.started.Load() {
		n.host.Each(func(r *replica.Replica) {
			if r.Unfit() != "" {
				reply.UnfitShards = append(reply.UnfitShards, uint64(r.ID()))
			}
		})
	}
	return reply, nil
}

// Load implements routerpb.PeerServer.
func (s *peerServer) Load(context.Context, *routerpb.LoadRequest) (*routerpb.LoadReply, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	return s.node.loads.own(time.Now()), nil
}

// Join implements routerpb.PeerServer.
func (s *peerServer) Join(ctx context.Context, req *routerpb.JoinRequest) (*routerpb.JoinReply, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	result, err := s.node.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_AddNode{AddNode: &placementpb.AddNode{
		Node: &placementpb.Node{Name: req.Name, PeerAddr: req.PeerAddr, ClientUrls: req.ClientUrls, Incarnation: req.Incarnation},
	}}})
	var refused *placement.RefusedError
	if errors.As(err, &refused) {
		return nil, status.Error(codes.FailedPrecondition, refused.Error())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &routerpb.JoinReply{ClusterId: s.node.self.Founding.ClusterID, NodeId: result.NodeId}, nil
}

// joinRefusal returns the cluster's reason for refusing the node, or nil if err is something else and a retry may
// help.
func joinRefusal(err error) error {
	if st, ok := status.FromError(err); ok && st.Code() == codes.FailedPrecondition {
		return errors.New(st.Message())
	}
	return nil
}

// ProposeMeta implements routerpb.PeerServer.
func (s *peerServer) ProposeMeta(ctx context.Context, req *routerpb.ProposeMetaRequest) (*routerpb.ProposeMetaReply, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	result, err := s.node.meta.proposeOwn(ctx, req.Command)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &routerpb.ProposeMetaReply{Result: result}, nil
}
