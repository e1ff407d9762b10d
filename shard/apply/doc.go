// Package apply is the only writer of a replica: it turns the commands of the Raft
// log into versions, one shard state and results.
//
// It owns the order in which a command is judged and carried out, the assignment of
// revisions, and the replica's state record. It refuses to know how a command
// reached the log, who waits for its result, and what bytes a version is made of
// (package mvcc). It starts no goroutine and reads no clock; who makes a Backlog says where
// gatherings run.
//
//	log entries --Update--> for each command: epoch, keys, checks, writes
//	                          |  one engine batch, with the state record in it
//	                          v
//	                        Commit, then View, then results
//
// The versions of updates that nobody reads are committed later, many updates of many
// machines in one batch (backlog.go, gather.go).
//
// Invariants:
//
//	A1  Deterministic: the state after entry i is a function of entries 1..i, for a
//	    shard that was split off, of its seed, and for one that was merged, of its frozen
//	    neighbour, which is the same on every node. How they were grouped into Update calls,
//	    what was asked for as results, what the clock said and what was restarted makes no
//	    difference.
//	A2  Total: every byte string in the log gives a state. What cannot be carried
//	    out is refused whole, with a result that says why; an error from Update
//	    means that the store failed, and nothing else.
//	A3  An entry's writes and the applied index that covers it are one atomic batch:
//	    an entry takes effect exactly once, whatever is replayed.
//	A4  A command changes all it says or nothing: every check comes before the
//	    first write, and what fails in between is undone.
//	A5  Compacted <= Rev <= Floor. A command that changes no key takes no revision.
//	A6  A View is published after the data it speaks of is readable, and never goes
//	    back (Install apart).
//	A7  Only a command of the descriptor's epoch, whose keys all lie in its span,
//	    touches data (R2 and the split protocol rest on it).
//	A8  Collect removes what no reader at or above the compacted revision can meet, and
//	    only from data that it has seen in the same step. Restarted anywhere it goes on,
//	    and what it says is collected has no garbage left.
//	A9  A SPLIT gives keys away and leaves the child its seed in one batch, unless the child's
//	    replica was removed from the node meanwhile. A child begins with its seed or a
//	    snapshot, or not at all: INIT without a seed poisons the replica for good. So two
//	    shards never write one key, and no replica begins without data that the others have.
//	A10 No snapshot and no INIT gives a replica keys that another shard's replica on the
//	    node has.
//	A11 From FREEZE to THAW nothing of a shard changes, and it serves nothing. SUBSUME takes
//	    the keys of a neighbour that is frozen for it on this node, with its revision, floor,
//	    compaction and what it knew of leases, in one batch, or poisons the replica. So no
//	    key is written by two shards, no revision goes back, no lease ends early.
//	A12 A batch that is not of the proposer that revisions are reserved for (shard.R5) raises
//	    the floor to the end of the reservation before its first command. So do a SPLIT, for
//	    the child, and a FREEZE. A new reservation never ends below the one it replaces.
//	A13 What Update has not stored is versions alone, is in the log, and is not covered by
//	    the stored applied index. Whoever reads the engine by a View finds all that it
//	    speaks of: the rest is stored first.
//	A14 What is taken out of a machine to be stored with what others have is stored with the
//	    state of that moment, and before anything that the machine applies later.
//	A15 After Close, Install and Reload nothing is stored any more of what the machine had
//	    applied before.
//	A16 Gathering holds no lock but, for a moment each, of the machine that it takes from. While
//	    the store works all machines go on, and so do those that wait for nothing.
package apply
