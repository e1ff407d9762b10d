// Package replica runs the Raft group members of one node.
//
// A Host owns the node's dragonboat NodeHost and every Replica on it. A Replica is
// a thin shell around apply.Machine: it batches proposals, waits for read
// barriers, streams snapshots, and reports nothing before the log or the
// machine has established it. It does not route: a command for keys that it does not own
// is refused by apply with WrongShardError.
//
//	Propose ─> proposer ─(one Batch at a time)─> Raft log ─> Update ─> apply.Machine
//	              ^                                            │
//	              └── results, matched by batch sequence ──────┘
//
// Invariants:
//
//	P1  A result is delivered only by Update in this process, for a batch that this
//	    process proposed: (incarnation, sequence) never match after a restart, and
//	    no two batches of a process share a sequence, whichever replica proposed them.
//	P2  Every command gets exactly one outcome: its result, a certain failure
//	    (nothing was proposed or the proposal was dropped), or ErrUnknownOutcome.
//	P3  A read that asked for a barrier sees every write acknowledged, anywhere,
//	    before it asked: it waits for a ReadIndex round that started after it arrived.
//	P4  Update, the event listeners and Sync never wait for another shard: all shards
//	    share their workers.
//	P5  A replica starts empty at most once in its life, whether it founds its group or
//	    joins it. This is recorded and synced before the first start; a later start
//	    without its Raft log is refused, and so is any start after its removal from the node.
//	P6  Garbage is collected on a dedicated goroutine, one shard at a time, in steps of
//	    bounded work, each followed by a pause of several times its duration.
//	P7  Only a leader, as far as known, proposes, except for an empty entry (Wean). Proposals
//	    lost with a leadership do not delay those that follow.
//	P8  A leader that hands over stops proposing before its successor campaigns, and does not
//	    resume until another replica leads, or the successor has declined, or 2 s have passed.
//	P9  A replica that was found to differ from the others permanently serves nothing, leads
//	    no group that could be asked anything, and sends its data to no other replica.
//	P10 Replicas are checksummed as of one entry of the log, from a pinned snapshot, on
//	    a dedicated goroutine, one replica at a time, in steps like those of P6.
//	P11 A replica campaigns early (Campaign) only in a group in which no member knows a
//	    leader that may still be there. The exception is the successor of a leader that hands over: in that leader's
//	    term, and with all of its log.
//	P12 A promise to assign no revision up to some point is kept whoever leads next: it
//	    lies within a reservation (shard.R5), this proposer stamps above it from then on, and when
//	    it was given no batch was in flight, or given up on, that could still get such a revision.
//	P13 A batch starts as soon as the previous one of its shard is done. Only while the machine is
//	    short of CPU does it wait for the next common tick, unless the batch is full, or contains what keys or
//	    leases are unavailable without, or is the first under a leader. The tick is one and a half spacings away at most, and comes as
//	    soon as nobody else is to be expected (muster). A batch never waits for another shard: those that are ready at
//	    the tick enter Raft together (convoy). ReadIndex rounds start at once, or at the next multiple of their spacing.
//	P14 A log that contains a split or merge is not truncated past it before the data that it hands over
//	    is durable on a majority of the nodes. So a replica that lost that data in a crash finds it in
//	    its own log, and is not sent a snapshot from after it. Whoever says that it is durable names the epoch (Wean):
//	    a replica that is not there yet has not truncated anything and does not count, and one that is past it
//	    keeps its log.
//	P15 No request is inside dragonboat while it closes. Those of proposers, read barriers and full logs, which outlive their
//	    callers, go through the entrance, which Close shuts first. All others have callers that
//	    have ended before Close is called.
package replica
