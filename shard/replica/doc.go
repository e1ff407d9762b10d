// Package replica runs the members of Raft groups that live on one node.
//
// A Host owns the node's dragonboat NodeHost and every Replica on it. A Replica is
// the thin shell around apply.Machine: it batches proposals, waits for read
// barriers, streams snapshots, and tells nothing to anyone before the log or the
// machine has said so. It refuses to route: a command for keys it does not own
// comes back as WrongShardError from apply.
//
//	Propose ─> proposer ─(one Batch at a time)─> Raft log ─> Update ─> apply.Machine
//	              ^                                            │
//	              └── results, matched by batch sequence ──────┘
//
// Invariants:
//
//	P1  A result is delivered only by Update on this process, for a batch that this
//	    process proposed: (incarnation, sequence) never match after a restart, and
//	    no two batches of a process share a sequence, whatever replica proposed them.
//	P2  Every command gets exactly one outcome: its result, a certain failure
//	    (nothing was proposed or the proposal was dropped), or ErrUnknownOutcome.
//	P3  A read that asked for a barrier sees every write acknowledged, anywhere,
//	    before it asked: it waits for a ReadIndex round that started after it came.
//	P4  Update, the event listeners and Sync never wait for another shard: their
//	    workers are shared by all of them.
//	P5  A replica starts empty at most once in its life, whether it founds its group or
//	    joins it. The fact is recorded, synced, before the first start; a later start
//	    without its Raft log is refused, and so is any after its removal from the node.
//	P6  Garbage is collected on a goroutine of its own, one shard at a time, in steps of
//	    bounded work, between which it rests several times as long as they took.
//	P7  Who proposes leads, as far as known; what was lost with a leadership holds up
//	    nothing that comes after it.
//	P8  A leader that hands over proposes nothing from before its heir stands for election
//	    until another leads, or the attempt has failed.
//	P9  A replica that was found to differ from the others serves nothing, leads nobody who
//	    could ask, and shows its data to no other replica, from then on for good.
//	P10  What replicas hold is summed up as of one entry of the log, from a pinned moment, on
//	    a goroutine of its own, one replica at a time, in steps as those of P6.
//	P11 Nobody stands for election early (Campaign) in a group that some member knows a
//	    leader of that may be there, but for the heir of one that hands over: in its term, and
//	    with all of its log.
//	P12 What was promised, not to mint up to some revision, is kept whoever leads next: it
//	    lies in a reservation (shard.R5), this proposer stamps above it from then on, and when
//	    it was given no batch was under way, or given up on, that could still mint it.
//	P13 A batch starts as soon as the last one of its shard is done. Only while the machine's
//	    processors are short it waits for the next common moment, which is near, unless it
//	    is full or has what keys or leases are without service for; never for another shard.
//	    So does a round of reads.
//	P14 The log that brings a split or merge is kept until what that gave to whom is durable on
//	    most nodes. So a replica of theirs that lost it in a crash finds it in its own log, and
//	    is sent no snapshot from behind it.
package replica
