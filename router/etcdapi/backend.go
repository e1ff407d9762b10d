package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
	"github.com/flotilla-kv/flotilla/shard"
)

// KV carries out validated requests and bounds the time of each itself. Requests stay
// the caller's; responses become it. A response's Header has the revision only, and
// so have the headers inside a TxnResponse.
//
// An error of a write is shard.ErrUnknownOutcome whenever a part of it may have been
// applied; any other error, except a context's, says that nothing was.
type KV interface {
	Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error)
	// StartGet is Range of one key without waiting: done is called once, perhaps before it returns,
	// and must not block. Told false, the caller starts over with Range. It returns false, and
	// does nothing, where a read has to be waited for.
	StartGet(key []byte, done func(resp *pb.RangeResponse, ok bool)) bool
	// RangeStream calls send with parts of the result in key order. Only the last part
	// has Header, More and Count.
	RangeStream(ctx context.Context, req *pb.RangeRequest, send func(*pb.RangeResponse) error) error
	Put(ctx context.Context, req *pb.PutRequest) (*pb.PutResponse, error)
	DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error)
	Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error)
	// StartEncodedPut and StartEncodedTxn are Put and Txn of requests that are at hand in bytes, too, which nobody
	// changes any more, and for callers who do not wait: done is called once with
	// what became of it, by anybody, perhaps before they return, and must not wait. Whoever abandons
	// a request has ended ctx.
	StartEncodedPut(ctx context.Context, req *pb.PutRequest, encoded []byte, done func(*pb.PutResponse, error)) rpcfront.Started
	StartEncodedTxn(ctx context.Context, req *pb.TxnRequest, encoded []byte, done func(*pb.TxnResponse, error)) rpcfront.Started
	Compact(ctx context.Context, req *pb.CompactionRequest) (*pb.CompactionResponse, error)
	// HashKV sums up what this member has of the keyspace at a revision.
	HashKV(ctx context.Context, req *pb.HashKVRequest) (*pb.HashKVResponse, error)
}

// Leases carries out requests about leases, on KV's terms.
type Leases interface {
	// Grant draws an ID when the request has none and raises a TTL below the minimum.
	Grant(ctx context.Context, req *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error)
	// Revoke returns when all keys of the lease are deleted.
	Revoke(ctx context.Context, req *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error)
	// KeepAlive renews leases, and returns the TTL of each and the header of all answers. It
	// answers with TTL 0, and TimeToLive with -1, when there is no such lease.
	KeepAlive(ctx context.Context, leases []int64) ([]int64, *pb.ResponseHeader, error)
	TimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error)
	Leases(ctx context.Context, req *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error)
}

// Watches opens watches.
type Watches interface {
	// Watch begins a watch of the span's changes from a revision on, and asks nobody
	// anything. ready is called whenever Poll may have something that it did not have
	// before. It may be called during any call of the watch, and must not block.
	Watch(span shard.Span, from shard.Revision, prevKV bool, ready func()) Watch
	// Settle returns the largest revision that the span has by now, once every later
	// change of it is sure to have a higher one.
	Settle(ctx context.Context, span shard.Span) (shard.Revision, error)
	// SettleHere has who told, once, what Settle returns, and reports whether it does: if that
	// takes no goroutine. After an error Settle is to be asked. It may tell before it returns.
	SettleHere(span shard.Span, who Settled) bool
	// Latest returns the largest revision that any of the spans has by now.
	Latest(ctx context.Context, spans []shard.Span) (shard.Revision, error)
}

// Settled is told where a watch begins, and must not wait.
type Settled = interface {
	Settled(rev shard.Revision, err error)
}

// Watch is a watch under way. It costs no goroutine, and what is not taken from it no
// memory beyond a bound.
type Watch interface {
	// Poll returns what there is now: whole revisions, at most about max events. ready is
	// called for the rest. An error ends the watch: a shard.CompactedError
	// when history that was not given yet is gone.
	Poll(max int) (shard.Changes, error)
	// Await has the watch come to rev, and ready called when it has.
	Await(rev shard.Revision)
	// Span is what is watched.
	Span() shard.Span
	Close()
}

// Cluster tells what etcd's API says of a cluster and a member. To etcd's clients a
// member is a node, and the Raft group is the meta group. Methods without a context
// answer from memory and never wait.
type Cluster interface {
	ClusterID() uint64
	MemberID() uint64
	RaftTerm() uint64
	HasLeader() bool
	// Revision is the largest revision this node has seen. It stands in the headers
	// of responses that speak of no key.
	Revision() int64

	// Members lists the nodes. linearizable asks for the list as of now; otherwise
	// what this node knows will do. ClientURLs must be reachable: clients that sync
	// their endpoints connect to them.
	Members(ctx context.Context, linearizable bool) ([]*pb.Member, error)
	// RemoveMember begins to empty a node, and takes one that is empty out of the cluster. It
	// is refused with what is left until then.
	RemoveMember(ctx context.Context, id uint64) error
	// MoveLeader has a member lead the meta group, and returns when it does.
	MoveLeader(ctx context.Context, id uint64) error
	// Status must answer while the cluster has no quorum.
	Status(ctx context.Context) (Status, error)

	// Alarms lists the alarms raised in the cluster, as far as this node knows.
	Alarms() []*pb.AlarmMember
	// Damaged reports whether this node holds data that may be corrupt, whatever alarms
	// there are.
	Damaged() bool
	// RaiseAlarm raises an alarm, also one that is raised already.
	RaiseAlarm(ctx context.Context, alarm *pb.AlarmMember) error
	// ClearAlarm clears an alarm and reports whether it was raised.
	ClearAlarm(ctx context.Context, alarm *pb.AlarmMember) (bool, error)
}

// Status is what Maintenance.Status says beyond what Cluster's other methods tell.
type Status struct {
	// Leader is the member that leads the meta group, or 0.
	Leader           uint64
	RaftIndex        uint64
	RaftAppliedIndex uint64
	// DBBytes is what the node's store takes on disk, DBInUseBytes what of it is live.
	DBBytes, DBInUseBytes int64
	// QuotaBytes is the limit of the store, 0 when it has none.
	QuotaBytes int64
	// Errors are further complaints; missing leader and alarms are added to them.
	Errors []string
}
