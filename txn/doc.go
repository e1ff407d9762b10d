// Package txn answers every question about a request that can be answered from the
// request alone: whether etcd would refuse it, which keys it touches, whether it is
// read-only, and which error to return when its keys lie in several shards.
//
// It is pure. It never evaluates a compare, never looks up a shard and never modifies
// a request; the router passes it requests and the shards it has found.
//
// Invariants:
//
//	T1  The Check functions accept exactly what etcd 3.7 accepts and refuse everything else
//	    with etcd's own error values, in etcd's order when a request has several faults.
//	T2  A footprint covers every key that the request could read or write under
//	    any outcome of its compares. A range that can contain no key adds nothing.
//	T3  Work is linear in the request's size times its operation limit, and
//	    recursion after CheckTxn is bounded by that limit.
package txn
