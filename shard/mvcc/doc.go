// Package mvcc keeps the versions of a shard's keys: it puts and deletes them, reads
// them at a revision, lists their changes, garbage-collects superseded versions and
// transfers whole spans between nodes.
//
// It owns the byte format of a version (record.go) and of a snapshot stream (snapshot.go).
// It assigns no revisions, knows neither leases nor descriptors, and does not decide what
// may be read: the caller has checked the revision against the compaction revision and the
// span against the shard. It starts no goroutine and reads no clock.
//
//	Writer   Raft updates: many transactions in one batch, reading its own writes; another
//	         goroutine may store what it has collected while it goes on (Seal)
//	Fetch    keys of a span at a revision; Respond turns them into etcd's answer
//	Events   changes of a span between two revisions, in revision order
//	Collect  one bounded step of removing superseded versions
//	Hash     one bounded step of hashing what Fetch would return
//
// Invariants:
//
//	V1  A key has at most one version per revision, and its versions' revisions increase
//	    in the order in which they were written.
//	V2  A delete is a version too (a tombstone). The latest version determines whether a
//	    key exists.
//	V3  Collect at C changes no answer of Fetch at or above C, and no answer of Events
//	    from C on, previous values included.
//	V4  A HeaderCache agrees with the engine: a header enters it when it was
//	    read from the engine or after its batch was committed.
//	V5  A snapshot stream is read whole or fails; there is no short read.
//	V6  Hash is a function of what Fetch returns, and the hashes of the parts of a span,
//	    however divided, add up to the span's.
//	V7  What a RowReader returns at a revision of a published view is what the engine
//	    would return.
//	V8  A Writer reads its own writes, sealed or not, until they are settled, and from the
//	    store afterwards. Sealed writes do not change.
//	V9  A header is in a HeaderCache either plain or packed, never both. Packed headers agree with the
//	    engine for every shard that may take them out: a shard that receives keys from another
//	    takes none that were packed before (Widen).
//	V10 A HeaderCache that began with an empty store, and has lost no header of its owner since, plain or packed, has
//	    those of all keys that the store has: a key that it does not have was never written.
package mvcc
