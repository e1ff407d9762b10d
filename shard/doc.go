// Package shard is the vocabulary every other package speaks: what a shard is
// called, which keys it owns, how its revisions are made, what a write to it
// looks like and how it can fail. It holds no state and does no I/O.
//
// A shard is one Raft group that owns one contiguous span of the user keyspace.
// The spans of all shards are disjoint and cover the keyspace (the meta group
// keeps that true; see package placement). Sub-packages hold what one shard does:
//
//	engine   the node's one Pebble store, its key layout, sync and ingest
//	mvcc     versions of keys: put, delete, range at a revision, compaction
//	apply    the only writer: turns committed commands into versions and results
//	replica  one Raft group member: batched proposals, reads, snapshots
//
// Revisions, numbered because code elsewhere cites them:
//
//	R1  Revisions of one shard strictly increase in log order.
//	R2  No two transactions of the cluster share a revision: the low bits are the
//	    shard's slot, and slots differ between shards whose spans could meet.
//	R3  A revision depends on the log alone (floor, stamp and slot are all in it),
//	    never on the clock of the replica that applies it.
//	R4  floor >= rev, and every write applied later gets a revision > floor. So
//	    "closed up to floor" is a promise: what is readable at or below it is final.
//	R5  While there is a Reservation, revisions up to its Until are minted only from batches
//	    of its proposer. Any other batch raises the floor to Until first and ends it, and
//	    whatever gets some of the shard's keys begins above Until.
//	R6  Until is at most ReserveAhead beyond its proposer's clock, or a revision that was seen.
//	    So no revision is further ahead of all nodes' clocks, however often leaders change.
package shard
