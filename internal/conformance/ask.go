package conformance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// asker sends requests as they are: no client library retries, rewrites or hides
// anything between a script and the server.
type asker struct {
	conn        *grpc.ClientConn
	kv          pb.KVClient
	lease       pb.LeaseClient
	watches     pb.WatchClient
	auth        pb.AuthClient
	maintenance pb.MaintenanceClient
	cluster     pb.ClusterClient
}

func dial(endpoint string) (*asker, error) {
	conn, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	return &asker{
		conn: conn, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), watches: pb.NewWatchClient(conn),
		auth: pb.NewAuthClient(conn), maintenance: pb.NewMaintenanceClient(conn), cluster: pb.NewClusterClient(conn),
	}, nil
}

func (a *asker) close() error { return a.conn.Close() }

func (a *asker) ask(ctx context.Context, req proto.Message, stream bool) (proto.Message, error) {
	switch req := req.(type) {
	case *pb.RangeRequest:
		if stream {
			return a.rangeStream(ctx, req)
		}
		return a.kv.Range(ctx, req)
	case *pb.PutRequest:
		return a.kv.Put(ctx, req)
	case *pb.DeleteRangeRequest:
		return a.kv.DeleteRange(ctx, req)
	case *pb.TxnRequest:
		return a.kv.Txn(ctx, req)
	case *pb.CompactionRequest:
		return a.kv.Compact(ctx, req)
	case *pb.LeaseGrantRequest:
		return a.lease.LeaseGrant(ctx, req)
	case *pb.LeaseRevokeRequest:
		return a.lease.LeaseRevoke(ctx, req)
	case *pb.LeaseTimeToLiveRequest:
		resp, err := a.lease.LeaseTimeToLive(ctx, req)
		if err != nil {
			return nil, err
		}
		// The time that is left passes, and etcd's keys are in no order.
		resp.TTL = min(resp.TTL, 1)
		slices.SortFunc(resp.Keys, bytes.Compare)
		return resp, nil
	case *pb.LeaseKeepAliveRequest:
		return a.keepAlive(ctx, req)
	case *pb.LeaseLeasesRequest:
		resp, err := a.lease.LeaseLeases(ctx, req)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(resp.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
		return resp, nil
	case *pb.WatchCreateRequest:
		return a.watch(ctx, req)
	}
	name := req.ProtoReflect().Descriptor().Name()
	if strings.HasPrefix(string(name), "Auth") {
		return a.askAuth(ctx, req)
	}
	return a.askNode(ctx, req)
}

// keepAlive renews a lease once.
func (a *asker) keepAlive(ctx context.Context, req *pb.LeaseKeepAliveRequest) (proto.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(req); err != nil {
		return nil, err
	}
	return stream.Recv()
}

// rangeStream returns the chunks merged into one response. Where a server cuts the
// chunks is its own affair; what they add up to is not.
func (a *asker) rangeStream(ctx context.Context, req *pb.RangeRequest) (proto.Message, error) {
	stream, err := a.kv.RangeStream(ctx, req)
	if err != nil {
		return nil, err
	}
	whole := &pb.RangeResponse{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return nil, err
		}
		proto.Merge(whole, chunk.RangeResponse)
	}
}

// answerOf is the text of what a call returned, and the revisions in it in the
// order of the text, where each is printed as revisionMark alone.
func answerOf(resp proto.Message, err error) (shape string, revisions []int64) {
	if err != nil {
		s := status.Convert(err)
		return fmt.Sprintf("error %s: %s", s.Code(), s.Message()), nil
	}
	shape = answer(resp, func(v int64) string {
		revisions = append(revisions, v)
		return revisionMark
	})
	if shape == "" {
		shape = "answered"
	}
	return shape, revisions
}

// headerRevision is the revision that references to a step mean, if it has one.
func headerRevision(resp proto.Message) (int64, bool) {
	h, ok := resp.(interface{ GetHeader() *pb.ResponseHeader })
	if !ok || h.GetHeader() == nil {
		return 0, false
	}
	return h.GetHeader().Revision, true
}
