package router

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/listing"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Request is one request to one shard, at one node.
type Request struct {
	Shard shard.ID
	Epoch uint64 // T2
	Op    routerpb.Op
	// Command is the write of OP_WRITE.
	Command *shardpb.Command
	// Put is the write of OP_WRITE in a client, instead of Command. It is encoded once, directly
	// into the frame, before the call that was given the request returns.
	Put *pb.PutRequest
	// Grows says that the command can make the store larger: it is refused while disk space is
	// short. Deletes and compactions never are.
	Grows bool
	// Begun says of a write that it is the rest of a client's request of which another shard has applied its part: it
	// is not refused for want of room for its answer.
	Begun bool
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
	// Promise says of a CLOSE that the leader's promise suffices, which a feed of this node's own
	// replica can use (Reply.Index). No read can rely on it.
	Promise bool
	// Limit is the number of keys that OP_FETCH wants; 0 is all.
	Limit int64
	// GiveUp, when closed, ends the wait for the answer as the end of the context does, with
	// ErrRequestTimeout as the cause. It is not sent.
	GiveUp <-chan struct{}
	// NoCount lets OP_FETCH stop at the Limit-th key (listing.FetchOptions).
	NoCount bool
	// Bytes ends OP_FETCH with the pair that comes to this size (listing.FetchOptions); the answer's More says that it
	// did. 0 is no bound.
	Bytes int64
	// Relay, in a request that a client sends to another node, is the node that is to carry it out; 0
	// is the one that receives it.
	Relay shard.NodeID
	// Room is the answer's, in the memory of the node that makes it; nil: it is not bounded. It is not sent.
	Room listing.Room
}

// forLeader reports whether only the leader of the shard answers the request.
func (r *Request) forLeader() bool {
	switch r.Op {
	case routerpb.Op_OP_WRITE, routerpb.Op_OP_LEASE_KEEPALIVE, routerpb.Op_OP_LEASE_TTL, routerpb.Op_OP_LEASE_LIST:
		return true
	}
	return false
}

// Repeatable reports whether a write is one of the idempotent commands, which their senders repeat
// after any failure (T1).
func (r *Request) Repeatable() bool {
	switch r.Command.GetKind() {
	case shardpb.Kind_CLOSE, shardpb.Kind_COMPACT, shardpb.Kind_LEASE_ATTACH, shardpb.Kind_LEASE_REGISTER,
		shardpb.Kind_LEASE_REVOKE, shardpb.Kind_LEASE_DETACH, shardpb.Kind_LEASE_FORGET:
		return true
	}
	return false
}

// Reply is a shard's answer.
type Reply struct {
	// The shard's view at the time of the answer; only Rev for OP_WRITE.
	Rev, Floor, Compacted shard.Revision
	// Index is the Raft index from which on a promised CLOSE is valid at other replicas.
	Index uint64
	// Message is the etcdserverpb response of the request's kind, without a meaningful Header; nil
	// for a put whose response has nothing else. For OP_HASH it is a routerpb.HashPart, for the
	// LEASE_ commands a shardpb.LeaseAnswer, for the lease operations a routerpb.LeaseStatus.
	Message proto.Message
	// Sent, unless it is nil, is called when the reply was sent to another node or client, with nothing of it left in memory,
	// or never will be: it returns the room that the reply takes. It is not sent.
	Sent func()
}

// Sender delivers a request to a node. Errors are those of package shard: the certain ones promise
// that nothing was applied; any other error of a write counts as shard.ErrUnknownOutcome.
type Sender interface {
	Send(ctx context.Context, node shard.NodeID, req *Request) (*Reply, error)
}
