// Package shard is the vocabulary that all other packages share: how a shard is
// identified, which keys it owns, how its revisions are made, what a write to it
// looks like and how it can fail. It holds no state and does no I/O.
//
// A shard is one Raft group that owns one contiguous span of the user keyspace.
// The spans of all shards are disjoint and cover the keyspace (the meta group
// maintains this; see package placement). Sub-packages hold what one shard does:
//
//	engine   the node's one Pebble store: key layout, sync and ingestion
//	mvcc     versions of keys: put, delete, range at a revision, garbage collection
//	apply    the only writer: turns committed commands into versions and results
//	lease    the leases of a shard: their replicated state, and deadlines on the leader
//	watch    feeds of a replica's changes
//	replica  one Raft group member: batched proposals, reads, snapshots
//	raftlog  the Raft logs of all groups of a node
//	hlc      the hybrid logical clock that stamps writes
//	listing  range requests and responses, independent of storage
//	load     rates, peaks and latencies
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
//	R5  While there is a Reservation, only batches of its proposer get revisions up to its
//	    Until. Any other batch first raises the floor to Until and ends the reservation, and
//	    a shard that receives some of these keys starts above Until.
//	R6  Until exceeds its proposer's clock, or a revision that was seen, by at most ReserveAhead.
//	    So no revision is further ahead of all nodes' clocks, however often leaders change.
package shard
