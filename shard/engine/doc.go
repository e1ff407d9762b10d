// Package engine is the node's one Pebble store: what the keys of all replicas on
// the node look like on disk, when they are durable, and how the data of a whole
// span is replaced at once.
//
// It owns the key layout, the Pebble options, syncing and ingesting. It refuses to
// know what a version's value means (package mvcc), what a local record says
// (package apply), and which replica may write: the callers see to that. It starts
// no goroutine of its own; Pebble's end with Close.
//
//	apply --batch--> Commit (in memory, not durable)
//	                   |
//	          Sync ----+--> one flush shared by every waiting replica
//	                   |
//	snapshot --SSTs--> Replace (excise + ingest + local records, atomic, durable)
//	collector -------> Tidy (what was removed leaves the disk)
//
// Invariants:
//
//	E1  Prefix durability: when a crash loses a commit, it loses every later commit
//	    to the same span and every later local record of the same replica too.
//	E2  Sync returns nil only when all that was committed before it was called is in files that
//	    are durable, and so is the manifest that names them.
//	E3  Replace is atomic and durable on return: after a crash the span holds either
//	    all of the old data with the old local records, or all of the new.
//	E4  A data key is written once per revision; bytes under it never change. (The
//	    callers keep it; block properties and snapshots rely on it.)
//	E5  A directory is opened only when its marker names a format this build knows.
//	E6  What was committed before Replace, by whomever, is durable before the new data is.
//	    Or the parent of a shard that was split off could lose its SPLIT, keep the child's
//	    data, and write into it what its log has from before.
//	E7  What is there when Open returns is durable, whatever its predecessor died of: a sync that
//	    failed leaves in the kernel's memory what is not on the disk. So nobody syncs it again.
//
// The Raft log is the write-ahead log of the state machines, so commits need not be
// durable: what a crash takes is replayed. Pebble's own log is off. It would have every
// byte written once more, so that Sync costs one fsync instead of a flush; but a node
// writes much all the time, and asks for Sync when a log is cut or a shard reshaped.
package engine
