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
package client
