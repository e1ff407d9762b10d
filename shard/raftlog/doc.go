// Package raftlog stores the Raft logs of all groups of a node in one sequence of files, so
// that everything the node has to make durable at a moment is one write and one fsync.
//
// It implements dragonboat's raftio.ILogDB. It refuses to know what entries mean, and
// it is no place for the state machines' data: that has a store of its own (package
// engine), for which this log is what makes it durable.
//
//	oldest ────────────────────────────────────── newest
//	[segment 7] [segment 8] [segment 9] [segment 10 …  <- records are appended
//	     └ what of it still counts moves to the end, then the file goes
//
// Each entry is written once. Where it is, and all that is small, is kept in memory; entries are
// read from the files, by replicas that catch up and at a start. A file goes when nothing in it
// counts any more, the oldest first.
//
// Invariants:
//
//	R1  When SaveRaftState has returned, entries, votes, terms and snapshot records it
//	    was given are durable. What Raft does not rely on, a commit index alone or a
//	    group's first members, is written in order but not waited for.
//	R2  After a crash the log holds a prefix of what was written, whole records of it: a
//	    snapshot record is never there without the commit index that precedes it, nor
//	    anything of a replica without its group's first members.
//	R3  A replica's entries have no gap, and none is behind the last one saved: saving an
//	    entry removes those that follow it from an earlier term.
//	R4  What one replica is told or loses changes nothing of another one's.
//	R5  What was durable and cannot be read any more is reported, and the log not opened: also
//	    when a segment is missing, the first and the last one included, or is another one's, or of
//	    another time. Only what a crash may have torn, behind the last sync in the newest segment, is left out.
//	R6  Before a segment goes, everything that took its place is durable.
//	R7  The first failure to write or to sync is the last: whether anything that follows would be
//	    behind a hole, nobody knows. All calls fail from then on.
package raftlog
