package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/router/auth"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3electionpb"
	"github.com/flotilla-kv/flotilla/router/etcdapi/v3lockpb"
)

// Coordination serves etcd's Lock and Election, with etcd's own recipes of puts, watches and
// leases. It is an ordinary client of the node's API, so the recipes get its guarantees and no
// more. Their errors are passed on unchanged, and so have code Unknown, as in etcd.
type Coordination struct {
	client *clientv3.Client
	guard  *auth.Guard
}

// firstKeepAlive is how long a session waits for the first response to its keepalive.
const firstKeepAlive = 5 * time.Second

// NewCoordination returns the services as clients of the API at conn, for example a Loopback's.
// Requests are made on behalf of those whom guard knows the callers to be.
func NewCoordination(conn grpc.ClientConnInterface, guard *auth.Guard) *Coordination {
	c := clientv3.NewCtxClient(context.Background())
	c.KV = clientv3.NewKVFromKVClient(pb.NewKVClient(conn), c)
	c.Lease = clientv3.NewLeaseFromLeaseClient(pb.NewLeaseClient(conn), c, firstKeepAlive)
	c.Watcher = clientv3.NewWatchFromWatchClient(pb.NewWatchClient(conn), c)
	return &Coordination{client: c, guard: guard}
}

// Register adds the services to a gRPC server.
func (c *Coordination) Register(g grpc.ServiceRegistrar) {
	v3lockpb.RegisterLockServer(g, &lockServer{Coordination: c})
	v3electionpb.RegisterElectionServer(g, &electionServer{Coordination: c})
}

// Close ends the services' active requests.
func (c *Coordination) Close() {
	_ = c.client.Close() // its error only says that the client was canceled, by itself
}

// session lasts for one request: keeping the lease alive is up to the caller. Lease 0 creates one
// that lives as long as a session of etcd's client.
func (c *Coordination) session(ctx context.Context, lease int64) (*concurrency.Session, error) {
	s, err := concurrency.NewSession(c.client, concurrency.WithLease(clientv3.LeaseID(lease)), concurrency.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	s.Orphan()
	return s, nil
}

func lockHeader(h *pb.ResponseHeader) *v3lockpb.ResponseHeader {
	return &v3lockpb.ResponseHeader{ClusterId: h.ClusterId, MemberId: h.MemberId, Revision: h.Revision, RaftTerm: h.RaftTerm}
}

// lockServer is etcd's Lock service.
type lockServer struct {
	v3lockpb.UnsafeLockServer
	*Coordination
}

func (s *lockServer) Lock(ctx context.Context, req *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	ctx, err := s.guard.As(ctx)
	if err != nil {
		return nil, err
	}
	session, err := s.session(ctx, req.Lease)
	if err != nil {
		return nil, err
	}
	mutex := concurrency.NewMutex(session, string(req.Name))
	if err := mutex.Lock(ctx); err != nil {
		return nil, err
	}
	return &v3lockpb.LockResponse{Header: lockHeader(mutex.Header()), Key: []byte(mutex.Key())}, nil
}

func (s *lockServer) Unlock(ctx context.Context, req *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	ctx, err := s.guard.As(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Delete(ctx, string(req.Key))
	if err != nil {
		return nil, err
	}
	return &v3lockpb.UnlockResponse{Header: lockHeader(resp.Header)}, nil
}

// electionServer is etcd's Election service.
type electionServer struct {
	v3electionpb.UnsafeElectionServer
	*Coordination
}

// Error texts for which etcd's API module has no value.
var (
	errMissingLeader = errors.New(`"leader" field must be provided`)
	errObserveEnded  = errors.New("election: observe closed early")
)

// nobody is a lease that does not exist, for sessions that attach nothing.
const nobody = -1

func (s *electionServer) Campaign(ctx context.Context, req *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	ctx, err := s.guard.As(ctx)
	if err != nil {
		return nil, err
	}
	session, err := s.session(ctx, req.Lease)
	if err != nil {
		return nil, err
	}
	e := concurrency.NewElection(session, string(req.Name))
	if err := e.Campaign(ctx, string(req.Value)); err != nil {
		return nil, err
	}
	return &v3electionpb.CampaignResponse{
		Header: lockHeader(e.Header()),
		Leader: &v3electionpb.LeaderKey{Name: req.Name, Key: []byte(e.Key()), Rev: e.Rev(), Lease: int64(session.Lease())},
	}, nil
}

// resume continues the election that a Campaign has won.
func (s *electionServer) resume(ctx context.Context, leader *v3electionpb.LeaderKey) (*concurrency.Election, error) {
	if leader == nil {
		return nil, errMissingLeader
	}
	session, err := s.session(ctx, leader.Lease)
	if err != nil {
		return nil, err
	}
	return concurrency.ResumeElection(session, string(leader.Name), string(leader.Key), leader.Rev), nil
}

func (s *electionServer) Proclaim(ctx context.Context, req *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	ctx, err := s.guard.As(ctx)
	if err != nil {
		return nil, err
	}
	e, err := s.resume(ctx, req.Leader)
	if err != nil {
		return nil, err
	}
	if err := e.Proclaim(ctx, string(req.Value)); err != nil {
		return nil, err
	}
	return &v3electionpb.ProclaimResponse{Header: lockHeader(e.Header())}, nil
}

func (s *electionServer) Resign(ctx context.Context, req *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	ctx, err := s.guard.As(ctx)
	if err != nil {
		return nil, err
	}
	e, err := s.resume(ctx, req.Leader)
	if err != nil {
		return nil, err
	}
	if err := e.Resign(ctx); err != nil {
		return nil, err
	}
	return &v3electionpb.ResignResponse{Header: lockHeader(e.Header())}, nil
}

func (s *electionServer) Leader(ctx context.Context, req *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	ctx, err := s.guard.As(ctx)
	if err != nil {
		return nil, err
	}
	session, err := s.session(ctx, nobody)
	if err != nil {
		return nil, err
	}
	resp, err := concurrency.NewElection(session, string(req.Name)).Leader(ctx)
	if err != nil {
		return nil, err
	}
	return leaderResponse(resp), nil
}

func (s *electionServer) Observe(req *v3electionpb.LeaderRequest, stream v3electionpb.Election_ObserveServer) error {
	ctx, err := s.guard.As(stream.Context())
	if err != nil {
		return err
	}
	session, err := s.session(ctx, nobody)
	if err != nil {
		return err
	}
	for resp := range concurrency.NewElection(session, string(req.Name)).Observe(ctx) {
		if err := stream.Send(leaderResponse(resp)); err != nil {
			return fmt.Errorf("tell of a leader: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errObserveEnded
}

func leaderResponse(resp *clientv3.GetResponse) *v3electionpb.LeaderResponse {
	kv := resp.Kvs[0]
	return &v3electionpb.LeaderResponse{Header: lockHeader(resp.Header), Kv: &v3electionpb.KeyValue{
		Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version, Value: kv.Value, Lease: kv.Lease,
	}}
}
