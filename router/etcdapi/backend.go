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
	// StartGet is Range of one key without blocking a goroutine: done is called once, perhaps
	// before StartGet returns, and must not block. If done gets false, the caller starts over with
	// Range. Where a read must block, StartGet returns false and does nothing.
	StartGet(key []byte, done func(resp *pb.RangeResponse, ok bool)) bool
	// RangeStream calls send with parts of the result in key order. Only the last part
	// has Header, More and Count.
	RangeStream(ctx context.Context, req *pb.RangeRequest, send func(*pb.RangeResponse) error) error
	Put(ctx context.Context, req *pb.PutRequest) (*pb.PutResponse, error)
	DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error)
	Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error)
	// StartEncodedPut and StartEncodedTxn are asynchronous forms of Put and Txn for requests that
	// are also available in encoded form, which must not change any more. done is called once with
	// the outcome, on any goroutine, perhaps before they return, and must not block. Whoever
	// abandons a request has ended ctx.
	StartEncodedPut(ctx context.Context, req *pb.PutRequest, encoded []byte, done func(*pb.PutResponse, error)) rpcfront.Started
	StartEncodedTxn(ctx context.Context, req *pb.TxnRequest, encoded []byte, done func(*pb.TxnResponse, error)) rpcfront.Started
	Compact(ctx context.Context, req *pb.CompactionRequest) (*pb.CompactionResponse, error)
	// HashKV hashes this member's copy of the keyspace at a revision.
	HashKV(ctx context.Context, req *pb.HashKVRequest) (*pb.HashKVResponse, error)
}

// Leases carries out requests about leases, under the same rules as KV.
type Leases interface {
	// Grant assigns an ID when the request has none and raises a TTL below the minimum.
	Grant(ctx context.Context, req *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error)
	// Revoke returns when all keys of the lease are deleted.
	Revoke(ctx context.Context, req *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error)
	// KeepAlive renews leases and returns the TTL of each and the header of all responses. The TTL
	// is 0 if there is no such lease; TimeToLive then returns -1.
	KeepAlive(ctx context.Context, leases []int64) ([]int64, *pb.ResponseHeader, error)
	TimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error)
	Leases(ctx context.Context, req *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error)
	// LeaseTTLs returns all leases with the TTLs that they were granted, in seconds.
	LeaseTTLs(ctx context.Context) (map[int64]int64, error)
}

// Watches opens watches.
type Watches interface {
	// Watch begins a watch of the span's changes from a revision on, and contacts nobody. ready is
	// called whenever Poll may have something that it did not have before. It may be called during
	// any call of the watch, and must not block.
	Watch(span shard.Span, from shard.Revision, prevKV bool, ready func()) Watch
	// Settle returns the span's largest revision, once every later change of the span is certain to
	// have a higher one.
	Settle(ctx context.Context, span shard.Span) (shard.Revision, error)
	// SettleHere passes to who, once, what Settle would return, and reports whether it will: only
	// if that takes no goroutine. After an error the caller uses Settle. It may call who before it
	// returns.
	SettleHere(span shard.Span, who Settled) bool
	// Latest returns the largest revision of any of the spans.
	Latest(ctx context.Context, spans []shard.Span) (shard.Revision, error)
}

// Settled receives the revision at which a watch begins, and must not block.
type Settled = interface {
	Settled(rev shard.Revision, err error)
}

// Watch is an open watch. It takes no goroutine, and its unread events take bounded memory.
type Watch interface {
	// Poll returns what is available: whole revisions, at most about max events. ready is called
	// for the rest. An error ends the watch: a shard.CompactedError when history that was not
	// delivered yet is gone.
	Poll(max int) (shard.Changes, error)
	// Await asks for the watch to reach rev, and for ready to be called when it has.
	Await(rev shard.Revision)
	// Span is the watched span.
	Span() shard.Span
	Close()
}

// Cluster provides what etcd's API reports of a cluster and a member. To etcd's clients a member is
// a node, and the Raft group is the meta group. Methods without a context answer from memory and
// never wait.
type Cluster interface {
	ClusterID() uint64
	MemberID() uint64
	RaftTerm() uint64
	HasLeader() bool
	// Revision is the largest revision this node has seen. It is used in the headers of responses
	// that concern no key.
	Revision() int64

	// Members lists the nodes. linearizable asks for the current list; otherwise this node's copy
	// suffices. ClientURLs must be reachable: clients that sync their endpoints connect to them.
	Members(ctx context.Context, linearizable bool) ([]*pb.Member, error)
	// RemoveMember starts to drain a node, and removes a drained node from the cluster. Until then
	// it is refused with what remains.
	RemoveMember(ctx context.Context, id uint64) error
	// MoveLeader makes a member the leader of the meta group, and returns when it leads.
	MoveLeader(ctx context.Context, id uint64) error
	// Status must answer while the cluster has no quorum.
	Status(ctx context.Context) (Status, error)

	// Alarms lists the alarms raised in the cluster, as far as this node knows.
	Alarms() []*pb.AlarmMember
	// Damaged reports whether this node holds data that may be corrupt, regardless of alarms.
	Damaged() bool
	// RaiseAlarm raises an alarm, or does nothing if it is raised already.
	RaiseAlarm(ctx context.Context, alarm *pb.AlarmMember) error
	// ClearAlarm clears an alarm and reports whether it was raised.
	ClearAlarm(ctx context.Context, alarm *pb.AlarmMember) (bool, error)
}

// Status is what Maintenance.Status reports in addition to Cluster's other methods.
type Status struct {
	// Leader is the member that leads the meta group, or 0.
	Leader           uint64
	RaftIndex        uint64
	RaftAppliedIndex uint64
	// DBBytes is the size of the node's store on disk, DBInUseBytes that of its live data.
	DBBytes, DBInUseBytes int64
	// Errors are further problems; a missing leader and alarms are added to them.
	Errors []string
}
