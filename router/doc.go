// Package router takes a request on any keys to the shards that own them.
//
// It knows where keys live (Cache), sends to nodes (Sender, given), and decides what
// an answer means: done, routed by a stale map, no leader, certain failure, unknown
// outcome. It has no transport and no storage, so that nodes and the Go client share
// it. It refuses to guess: a write whose outcome is unknown is never sent again.
//
//	request ─> lookup ─> split by shard ─> send ─┬─> answer, merged
//	             ^                               │
//	             └── WrongShard, NotLeader, … ───┘  (learn, then again)
//
// Invariants:
//
//	T1  A write is sent again only after an answer that says nothing was applied. CLOSE,
//	    COMPACT and all steps of leases but the grant, which change nothing the second
//	    time, are sent again after any. Whatever is neither an answer nor certain is shard.ErrUnknownOutcome.
//	T2  A request to one shard carries the epoch it was routed by, so a stale map can
//	    only cost a retry.
//	T3  A read over several shards is an exact cut at one revision R: R is the largest
//	    revision of any shard in the requested span at a read barrier, and every shard
//	    is closed to R before it is read.
//	T4  Reads never mint revisions; an idle span answers the same revision again.
//	T5  The shards a request was split into cover its span without overlap.
//	T6  A key is attached to a lease only after the lease's record names the span of the
//	    key's shard, and the shard was told so with the fence of its own refusal.
//	T7  A lease is forgotten only after its record was marked and, later, every part of
//	    every span in it was detached.
//	T8  A node sends a shard no more puts, deletes, transactions and grants than package
//	    admission gives turns. Closes and what ends leases need none: others wait for them.
package router
