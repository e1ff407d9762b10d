// Package mvcc keeps the versions of a shard's keys: it puts and deletes them, reads
// them at a revision, lists their changes, drops the superseded ones and moves a
// whole span between nodes.
//
// It owns the bytes of a version (record.go) and of a snapshot stream (snapshot.go).
// It refuses to mint revisions, to know leases or descriptors, and to decide what
// may be read: the caller has checked the revision against the compacted one and the
// span against the shard. It starts no goroutine and reads no clock.
//
//	Writer   Raft updates: many transactions into one batch, reading its own writes; what it
//	         has collected another goroutine may store while it goes on (Seal)
//	Fetch    keys of a span at a revision;  Respond makes etcd's answer of it
//	Events   changes of a span between two revisions, in revision order
//	Collect  one bounded step of dropping superseded versions
//	Hash     one bounded step of summing up what Fetch would show
//
// Invariants:
//
//	V1  A key has at most one version per revision, and its versions' revisions rise
//	    in the order they were written.
//	V2  A delete is a version too (a tombstone). The latest version decides whether a
//	    key exists.
//	V3  Collect at C changes no answer of Fetch at or above C, and no answer of Events
//	    from C on, previous values included.
//	V4  A HeaderCache holds what the engine holds: headers enter it when they were
//	    read from the engine or after their batch was committed.
//	V5  A snapshot stream is read whole or fails; there is no short read.
//	V6  Hash is a function of what Fetch returns, and the sum of any parts of a span is
//	    the span's.
//	V7  What a RowReader returns at a revision of a published view is what the engine
//	    would give.
//	V8  A Writer reads what it has written, sealed or not, until it is settled, and then from
//	    the store. What is sealed does not change.
//	V9  A header is in a HeaderCache or packed, once. What is packed is what the engine holds, for every shard
//	    that may take it out: one that gets keys from another shard takes nothing of before (Widen).
package mvcc
