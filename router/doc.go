// Package router takes a request for any keys to the shards that own them.
//
// It knows where keys live (Cache), sends requests to nodes through a Sender that it is
// given, and interprets the answers: done, stale map, no leader, certain failure, unknown
// outcome. It has neither transport nor storage, so that nodes and the Go client share it.
// It never guesses: a write whose outcome is unknown is never sent again.
//
//	request ─> lookup ─> split by shard ─> send ─┬─> merge the answers
//	             ^                               │
//	             └── WrongShard, NotLeader, … ───┘  (update the cache and retry)
//
// Invariants:
//
//	T1  A write is retried only after an answer which says that nothing was applied. Exempt are
//	    the idempotent commands, which are retried after any failure: CLOSE, COMPACT and all
//	    lease commands but the grant. An end that is neither an answer nor a certain failure is
//	    reported as shard.ErrUnknownOutcome.
//	T2  A request to one shard carries the epoch by which it was routed, so a stale map costs
//	    at most a retry.
//	T3  A read over several shards is an exact cut at one revision R: R is the largest
//	    revision of any shard in the requested span at a read barrier, and every shard
//	    is closed to R before it is read.
//	T4  Reads never assign revisions; reading an idle span again returns the same revision, until a
//	    compaction raises it to a later one that some shard has assigned (A18 of shard/apply).
//	T5  The parts into which a request is split cover its span without overlap.
//	T6  A key is attached to a lease only after the lease's record names the span of the
//	    key's shard, and the shard has registered the lease with the fence of its own refusal.
//	T7  A lease's record is deleted only after it was marked as revoked and, later, every part
//	    of every span in it was detached.
//	T8  A node sends a shard no more puts, deletes, transactions and grants than package
//	    admission admits. Closes and lease revocations bypass admission: other requests wait for them.
//	T9  What a client asks a node to relay is sent to one other node, and is carried out there or refused: no
//	    request is passed on twice. A write is sent once; a read again only after its answer was dropped for want of room.
//	T10 What is read for an answer with room of its own (package admission) takes it before the next part is
//	    read, from whichever node it comes. When there is none, all of it is dropped before anything waits.
package router
