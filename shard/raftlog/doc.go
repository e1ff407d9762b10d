// Package raftlog stores the Raft logs of all groups of a node in one Pebble store, so
// that everything the node has to make durable at a moment is one write and one fsync.
//
// It implements dragonboat's raftio.ILogDB. It refuses to know what entries mean, and
// it is no place for the state machines' data: that has a store of its own (package
// engine), for which this log is what makes it durable.
//
// It takes the place of dragonboat's own log store because that one waits for the disk also when
// only a commit index has changed, which is once per write for a group that is not busy.
//
// Invariants:
//
//	R1  When SaveRaftState has returned, entries, votes, terms and snapshot records it
//	    was given are durable. What Raft does not rely on, a commit index alone or a
//	    group's first members, is written in order but not waited for.
//	R2  After a crash the store holds a prefix of what was written: a snapshot record is
//	    never there without the commit index that precedes it, nor anything of a replica
//	    without its group's first members.
//	R3  A replica's entries have no gap, and none is behind the last one saved: saving an
//	    entry removes those that follow it from an earlier term.
//	R4  What one replica is told or loses changes nothing of another one's.
package raftlog
