package etcdapi

import (
	"context"
	"errors"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3electionpb"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3lockpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/txn"
)

// authorize refuses a unary RPC that its caller may not make. Every RPC of the client port that has no rule here is
// for users with the role root only (E7).
func (s *Server) authorize(ctx context.Context, method string, req any) error {
	if s.cfg.Auth.Open() {
		return nil
	}
	c := s.cfg.Auth.Of(ctx)
	switch req := req.(type) {
	// As in etcd, what is wrong with a request comes before who makes it.
	case *pb.RangeRequest:
		if txn.CheckRange(req) != nil {
			return nil // the handler refuses it
		}
		return c.Read(req.Key, req.RangeEnd)
	case *pb.PutRequest:
		if txn.CheckPut(req) != nil {
			return nil
		}
		return s.permit(ctx, c, func(n *auth.Needs) error { return n.Put(req) })
	case *pb.DeleteRangeRequest:
		if txn.CheckDeleteRange(req) != nil {
			return nil
		}
		return s.permit(ctx, c, func(n *auth.Needs) error { return n.Delete(req) })
	case *pb.TxnRequest:
		if txn.CheckTxn(req, txn.DefaultMaxOps) != nil {
			return nil
		}
		return s.permit(ctx, c, func(n *auth.Needs) error { return n.Txn(req) })
	case *pb.LeaseRevokeRequest:
		if err := c.User(); err != nil {
			return err
		}
		return s.permitLease(ctx, c, req.ID, true)
	case *pb.LeaseTimeToLiveRequest:
		if err := c.User(); err != nil || !req.Keys {
			return err
		}
		return s.permitLease(ctx, c, req.ID, false)
	case *pb.LeaseLeasesRequest:
		return readError(ctx, c.AllLeases(ctx, s.leases))
	case *pb.AlarmRequest:
		if req.Action == pb.AlarmRequest_GET {
			return c.User()
		}
		return c.Root()
	}
	switch method {
	case pb.Auth_Authenticate_FullMethodName:
		return nil
	case pb.Auth_AuthStatus_FullMethodName:
		// Everybody may ask. But as in etcd, a client whose token is no good hears of it.
		if err := c.User(); errors.Is(err, rpctypes.ErrGRPCInvalidAuthToken) {
			return err
		}
		return nil
	case pb.Auth_UserGet_FullMethodName, pb.Auth_RoleGet_FullMethodName:
		return nil // the handlers know whose they are
	case pb.Lease_LeaseGrant_FullMethodName, pb.Cluster_MemberList_FullMethodName, pb.Maintenance_Status_FullMethodName:
		return c.User()
	}
	if judgesItself(method) {
		return nil
	}
	return c.Root()
}

// authorizeStream does for streams what authorize does for unary RPCs.
func (s *Server) authorizeStream(ctx context.Context, method string) error {
	if s.cfg.Auth.Open() || judgesItself(method) {
		return nil
	}
	return s.cfg.Auth.Of(ctx).Root()
}

// judgesItself reports whether an RPC's handler asks for permission: because it depends on what a stream requests, or
// because the handler makes requests on behalf of its caller.
func judgesItself(method string) bool {
	switch method {
	case pb.KV_RangeStream_FullMethodName, pb.Watch_Watch_FullMethodName, pb.Lease_LeaseKeepAlive_FullMethodName:
		return true
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	switch service {
	case v3lockpb.Lock_ServiceDesc.ServiceName, v3electionpb.Election_ServiceDesc.ServiceName, routerpb.Native_ServiceDesc.ServiceName:
		return true
	case healthpb.Health_ServiceDesc.ServiceName: // as in etcd, for everybody
		return true
	}
	return false
}

// permit checks what a request needs, with the keys of the leases that it attaches.
func (s *Server) permit(ctx context.Context, c *auth.Caller, check func(*auth.Needs) error) error {
	n := auth.Needs{Caller: c}
	if err := check(&n); err != nil {
		return err
	}
	return readError(ctx, n.Attached(ctx, s.leases))
}

// permitLease checks that the caller may write, or read, every key that is attached to a lease.
func (s *Server) permitLease(ctx context.Context, c *auth.Caller, lease int64, write bool) error {
	return readError(ctx, c.Lease(ctx, s.leases, lease, write))
}
