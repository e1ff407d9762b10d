package node

import (
	"context"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/routerpb"
)

// clusterKey is the header in which a node tells its peers its cluster. An address may have passed
// to a node of another cluster, whose shards have the same IDs: a write sent there would be lost
// here and appear there.
const clusterKey = "flotilla-cluster"

// introduce makes every call to a peer carry the node's cluster, once it has one.
func (n *Node) introduce() []grpc.DialOption {
	mark := func(ctx context.Context) context.Context {
		if id := n.cluster.Load(); id != 0 {
			return metadata.AppendToOutgoingContext(ctx, clusterKey, strconv.FormatUint(id, 16))
		}
		return ctx
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(mark(ctx), method, req, reply, conn, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(mark(ctx), desc, conn, method, opts...)
		}),
	}
}

// sameCluster refuses calls from nodes of another cluster. Hello and Join are exempt, because nodes
// use them to find out.
func (n *Node) sameCluster(ctx context.Context, method string) error {
	if method == routerpb.Peer_Hello_FullMethodName || method == routerpb.Peer_Join_FullMethodName {
		return nil
	}
	own := strconv.FormatUint(n.cluster.Load(), 16)
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get(clusterKey); len(got) != 1 || got[0] != own {
		return status.Errorf(codes.FailedPrecondition, "node %q is of cluster %s, its caller is not (%v)", n.cfg.Name, own, got)
	}
	return nil
}

func (n *Node) checkUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := n.sameCluster(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func (n *Node) checkStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := n.sameCluster(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(srv, stream)
}
