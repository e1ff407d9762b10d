// Package raftlog stores the Raft logs of all groups of a node in one sequence of segment
// files, so that everything the node must make durable at one moment takes one write and one fsync.
//
// It implements dragonboat's raftio.ILogDB. It does not know what entries mean, and it does not
// hold the state machines' data: that has a store of its own (package engine), whose
// write-ahead log is this one.
//
//	oldest ────────────────────────────────────── newest
//	[segment 7] [segment 8] [segment 9] [segment 10 …  <- records are appended
//	     └ records still in use are copied to the end, then the file is deleted
//
// Each entry is written once. An index of the entries' positions, and all small records, are kept
// in memory; entries are read from the files when a replica catches up and at startup. Segments are
// deleted oldest first, once nothing in them is in use any more.
//
// Invariants:
//
//	R1  When SaveRaftState has returned, the entries, votes, terms and snapshot records it
//	    was given are durable. What Raft does not rely on, a lone commit index or a
//	    group's initial members, is written in order but not waited for.
//	R2  After a crash the log contains a prefix of what was written, in whole records: a
//	    snapshot record is never present without the commit index that precedes it, nor
//	    anything of a replica without its group's initial members.
//	R3  A replica's entries have no gap, and none follows the last one saved: saving an
//	    entry removes its successors from an earlier term.
//	R4  What is saved or removed for one replica changes nothing of another replica's.
//	R5  If data that was durable can no longer be read, this is reported and the log is not
//	    opened. That includes a missing segment, also the first or the last, and one that belongs
//	    to another log or another time. Only a torn tail is dropped: what a crash may have damaged
//	    behind the last sync in the newest segment.
//	R6  Before a segment is deleted, everything that replaces its records is durable.
//	R7  The first failed write or sync is final, since nobody can tell whether later records
//	    would follow a hole. All calls fail from then on.
package raftlog
