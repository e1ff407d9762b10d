package router

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Request asks one shard, at one node, for one thing.
type Request struct {
	Shard shard.ID
	Epoch uint64 // T2
	Op    routerpb.Op
	// Command is the write of OP_WRITE.
	Command *shardpb.Command
	// Put is, in a client, the write of OP_WRITE instead of Command. It is encoded once, into what
	// is sent, before whoever was given the request returns.
	Put *pb.PutRequest
	// Grows says that the command can make the store larger: it is refused while space
	// is short. Deletes and compactions never are.
	Grows bool
	// Message is the etcdserverpb request of OP_RANGE, OP_FETCH, OP_TXN and OP_HASH, and the
	// routerpb.LeaseQuery of the lease operations.
	Message proto.Message
	// Serializable skips the read barrier: the answer may be stale.
	Serializable bool
	// At is the revision to read at; 0 is the latest after the barrier. A replica
	// whose floor is lower answers NotClosedError, or waits when Closed is set.
	At shard.Revision
	// Closed says that the caller has closed the shard to At.
	Closed bool
	// Promise says of a CLOSE that the leader's word is enough, which a feed of this node's
	// own replica can be told (Reply.Index). No read can go by it.
	Promise bool
	// Limit is how many keys OP_FETCH wants; 0 is all.
	Limit int64
	// GiveUp, when closed, ends the wait for the answer like the end of the context does,
	// with ErrRequestTimeout as the cause. It stays with the sender.
	GiveUp <-chan struct{}
	// NoCount lets OP_FETCH end with the Limit-th key (listing.FetchOptions).
	NoCount bool
}

// forLeader reports whether only the leader of the shard answers the request.
func (r *Request) forLeader() bool {
	switch r.Op {
	case routerpb.Op_OP_WRITE, routerpb.Op_OP_LEASE_KEEPALIVE, routerpb.Op_OP_LEASE_TTL, routerpb.Op_OP_LEASE_LIST:
		return true
	}
	return false
}

// Reply is a shard's answer.
type Reply struct {
	// The shard's view at the answer; Rev alone for OP_WRITE.
	Rev, Floor, Compacted shard.Revision
	// Index is the Raft index from which on a promised CLOSE counts at other replicas.
	Index uint64
	// Message is the etcdserverpb response of the request's kind, without a Header that says
	// anything; of a put nil where it says nothing else. Of OP_HASH a routerpb.HashPart, of the LEASE_
	// commands a shardpb.LeaseAnswer, of the lease operations a routerpb.LeaseStatus.
	Message proto.Message
}

// Sender delivers a request to a node. Errors are those of package shard: certain
// ones promise that nothing was applied; any other error of a write counts as
// shard.ErrUnknownOutcome.
type Sender interface {
	Send(ctx context.Context, node shard.NodeID, req *Request) (*Reply, error)
}
