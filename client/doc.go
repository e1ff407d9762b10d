// Package client is Flotilla's own client. It keeps a map of the shards, sends each
// request directly to the leader of its shard, and combines concurrent requests to a node
// into one message.
//
//	Do, Go, Batch ─> router.Router ─┬─ nodes ─> one stream per node
//	                    │           │
//	                    └─ cache ───┴─ directory <─ FollowShards of any node
//
// It owns connections and the copy of the map. Package router interprets shards' answers and
// decides whether a request may be retried, as it does on a node. Programs written
// for etcd's client use package client/etcd on top of this one.
//
// Invariants:
//
//	X1  Every operation ends with one outcome: done, certainly not done, or
//	    *UnknownOutcomeError. After the last it is never sent again, and the last is never
//	    reported as one of the others.
//	X2  An operation ends soon after its context, and without one within about
//	    router.RequestTimeout per attempt.
//	X3  The outcome of one operation says nothing about another's: the operations of a batch
//	    fail individually.
//	X4  The queue of requests to be sent is bounded; beyond it operations fail with shard.ErrOverloaded.
//	X5  After Close nothing of the client runs.
//
// While a node cannot be reached, or brings nothing, what is for it is sent to another node, which relays it once.
// So a client needs a way to one node, which may be a load balancer's address; it is faster with a way to each.
//
// Where authentication is enabled, a client acts for the user in its Config, and each operation needs what etcd's of
// the same kind needs. A watch ends with ErrGRPCPermissionDenied when its user may not read all of its span any more. Every
// user sees where shards begin and end.
//
// One client per process is enough: concurrent operations of its goroutines share messages. An
// operation without a deadline gives up after about seven seconds of retrying (router.RequestTimeout).
//
// # Errors
//
// An operation that ends with an *UnknownOutcomeError may have been applied, or may still be. With
// any other error nothing was applied. The others are, for errors.Is and errors.As:
//
//   - the caller's context's, and [ErrClosed] after Close
//   - [shard.ErrUnavailable] (no node to ask, or the node asked is stopping), [shard.ErrOverloaded] and
//     [shard.ErrNoSpace]: the same operation may succeed later
//   - [shard.ErrLargeAnswer]: a transaction that only reads reads more than nodes send each other
//   - [shard.ErrCompacted], [shard.ErrFutureRevision], [shard.ErrLeaseNotFound]
//   - [*txn.CrossShardError]: the keys of a transaction lie in several shards, which it names
//   - etcd's own refusals, of its package rpctypes (those named ErrGRPC…): an empty key, a request that is too large;
//     where authentication is enabled also ErrGRPCPermissionDenied, ErrGRPCAuthFailed (there is no such user, or the
//     password is wrong) and ErrGRPCUserEmpty (the client has no user)
package client
