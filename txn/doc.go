// Package txn decides what can be decided about a request by looking at it alone:
// whether etcd would refuse it, which keys it touches, whether it only reads, and
// what to say when its keys lie in several shards.
//
// It is pure. It never evaluates a compare, never looks a shard up and never
// changes a request; the router gives it requests and the shards it has found.
//
// Invariants:
//
//	T1  The Check functions accept exactly what etcd 3.7 accepts and refuse with
//	    etcd's own error values, in etcd's order when a request has several faults.
//	T2  A footprint covers every key that the request could read or write under
//	    any outcome of its compares. A range that can hold no key adds nothing.
//	T3  Work is linear in the request's size times its operation limit, and
//	    recursion after CheckTxn is bounded by that limit.
package txn
