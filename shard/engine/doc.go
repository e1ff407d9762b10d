// Package engine is the node's one Pebble store: how the keys of all replicas on
// the node are laid out on disk, when they are durable, and how the data of a whole
// span is replaced atomically.
//
// It owns the key layout, the Pebble options, syncing and ingestion. It does not know what
// a version's value means (package mvcc) or what a local record contains
// (package apply), and it does not check which replica may write; its callers do. It starts
// no goroutine of its own; Pebble's end with Close.
//
//	apply --batch--> Commit (in memory, not durable)
//	                   |
//	          Sync ----+--> one memtable flush, shared by every waiting replica
//	                   |
//	snapshot --SSTs--> Replace (excise + ingest + local records, atomic, durable)
//	collector -------> Tidy (compactions drop what was deleted)
//	node ------------> ShortenReads (a compaction of L0, once reads have paid for it)
//
// Invariants:
//
//	E1  Prefix durability: when a crash loses a commit, it also loses every later commit
//	    to the same span and every later local record of the same replica.
//	E2  Sync returns nil only when everything committed before the call is in durable
//	    files, and so is the manifest that names them.
//	E3  Replace is atomic and durable on return: after a crash the span holds either
//	    all of the old data with the old local records, or all of the new.
//	E4  A data key is written once per revision; its value never changes. (The
//	    callers ensure this; block properties and snapshots rely on it.)
//	E5  A directory is opened only when its marker names a format this build knows.
//	E6  Everything committed before Replace, by any replica, is durable before the new data is.
//	    Otherwise the parent of a split could lose its SPLIT in a crash while the child's data
//	    remained, and replay older entries of its log into the child's keys.
//	E7  Everything present when Open returns is durable, whatever ended the previous process: a failed
//	    sync leaves data in the page cache that is not on the disk. So nobody needs to sync it again.
//	E8  Background reads do not grow the block cache beyond what foreground reads have made it, except
//	    by a bounded part.
//	E9  What a ReplaceIf has asked for holds when the data is replaced, and is durable before that: no change
//	    of which replica has which keys came in between, if all of them are made under Owners.
//	E10 A compaction that ShortenReads makes has been paid for: since the last one reads have looked in vain, into
//	    tables that are still there, for at least half of what it costs.
//
// The Raft log is the write-ahead log of the state machines, so commits need not be
// durable: whatever a crash loses is replayed. Pebble's own WAL is disabled. It would write every
// byte once more in order that Sync cost an fsync instead of a flush; but a node writes all the
// time, and calls Sync only when it truncates a log or reshapes a shard.
package engine
