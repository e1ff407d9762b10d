// Package client is Flotilla's own client. It keeps a map of the shards, sends each
// request straight to the leader of its shard, and puts all that goes to a node at the
// same time into one message.
//
//	Do, Go, Batch ─> router.Router ─┬─ nodes ─> one stream per node
//	                    │           │
//	                    └─ cache ───┴─ directory <─ FollowShards of any node
//
// It owns connections and the copy of the map. What a shard's answer means, and whether a
// request may be sent again, is decided by package router, as on a node. Programs written
// for etcd's client use package client/etcd on top of this one.
//
// Invariants:
//
//	X1  Every operation ends with one outcome: done, certainly not done, or
//	    *UnknownOutcomeError. The last is never sent again, and never told as another.
//	X2  An operation ends soon after its context, and by itself within about
//	    router.RequestTimeout of every attempt.
//	X3  The outcome of one operation says nothing about another's: those of a batch fail
//	    one by one.
//	X4  What waits to be sent is bounded; beyond it operations fail with shard.ErrOverloaded.
//	X5  After Close nothing of the client runs.
package client
