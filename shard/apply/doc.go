// Package apply is the only writer of a replica: it turns the commands of the Raft
// log into versions, one shard state and results.
//
// It owns the order in which a command is validated and executed, the assignment of
// revisions, and the replica's state record. It does not know how a command
// reached the log, who waits for its result, or what bytes a version consists of
// (package mvcc). It starts no goroutine and reads no clock; whoever creates a Backlog
// provides the goroutines for gatherings.
//
//	log entries --Update--> for each command: epoch, keys, checks, writes
//	                          |  one engine batch, which includes the state record
//	                          v
//	                        Commit, then View, then results
//
// The versions of updates that nobody reads are committed later: many updates of many
// machines in one batch (backlog.go, gather.go).
//
// Invariants:
//
//	A1  Deterministic: the state after entry i is a function of entries 1..i; for a
//	    shard that was split off, also of its seed; for a shard that took over a neighbour in a
//	    merge, also of that frozen neighbour, which is the same on every node. How entries were
//	    grouped into Update calls, which results were requested, what the clock showed and
//	    which restarts happened makes no difference.
//	A2  Total: every byte string in the log yields a state. A command that cannot be
//	    executed is refused as a whole, with a result that says why; an error from Update
//	    means that the store failed, and nothing else.
//	A3  An entry's writes and the applied index that covers it are one atomic batch:
//	    an entry takes effect exactly once, whatever is replayed.
//	A4  A command takes full effect or none: every check precedes the
//	    first write, and a failure in between is undone.
//	A5  Compacted <= Rev <= Floor. A command that changes no key takes no revision.
//	A6  A View is published only after the data it describes is readable, and never moves
//	    backwards (except by Install).
//	A7  Only a command of the descriptor's epoch, whose keys all lie in its span,
//	    touches data (R2 and the split protocol rely on it).
//	A8  Collect removes only what no reader at or above the compaction revision can reach, and
//	    only data that it has examined in the same step. It resumes after a restart at any point,
//	    and whatever it reports as collected contains no garbage.
//	A9  A SPLIT gives keys away and leaves the child its seed in one batch, unless the child's
//	    replica was removed from the node meanwhile. A child starts from its seed or a
//	    snapshot, or not at all: INIT without a seed poisons the replica for good. So two
//	    shards never write one key, and no replica starts without data that the others have.
//	A10 Neither a snapshot nor INIT gives a replica keys that another shard's replica on the
//	    node holds. A snapshot takes long to receive, so the others' records are looked at before and again when the
//	    data is replaced. Whoever comes second is poisoned.
//	A11 From FREEZE to THAW nothing of a shard changes, and it serves nothing. SUBSUME takes
//	    over a neighbour that is frozen for it on this node (keys, revision, floor,
//	    compaction revision, lease state) in one batch, or poisons the replica. So no
//	    key is written by two shards, no revision decreases, no lease ends early.
//	A12 A batch from any proposer but the one that revisions are reserved for (shard.R5) raises
//	    the floor to the end of the reservation before its first command. So do a SPLIT, for
//	    the child, and a FREEZE. A new reservation never ends below the one it replaces.
//	A13 What Update has not stored consists of versions only, is in the log, and is not covered by
//	    the stored applied index. A reader of the engine finds everything that its View
//	    describes, because unstored versions are stored first.
//	A14 Versions that a gathering takes out of a machine are stored together with the machine's state
//	    of that moment, and before anything that the machine applies later.
//	A15 After Close, Install and Reload, nothing that the machine had applied before is
//	    stored any more.
//	A16 A gathering holds no lock except, briefly, that of the machine it takes versions from.
//	    While the store works, all machines proceed, and so does everyone who does not
//	    need the result.
//	A17 Every version in a node's store lies in keys that some replica's record gives it: state, frozen state or
//	    seed. Keys that a replica gives up without an heir on the node (so may a SPLIT, and so does a
//	    replica that had keys and is poisoned) lose their data in the batch that gives them up. A narrower
//	    snapshot replaces all that its receiver had, frozen or by a seed too. Discard and Forget remove what a
//	    removed replica had. None of them removes what another replica's record names.
//	A18 After a COMPACT, Rev is not below any revision that its sender had seen. Nothing was written between the Rev
//	    before and the Rev after, and the Floor rises too: what is read at the new Rev, with all that is
//	    watched from the next revision on, is complete (R4).
//
// Why A10 and A17 hold, whatever else happens on the node: who has which keys is in the records, each change of them is
// committed before anybody sees its effect, and engine.Owners is held from a look at the records to the commit that
// relies on it. So of two that want the same keys one sees the other. Data that no record names is
// nobody's, and nobody comes to rely on it later, because keys are got in four ways only: INIT without a parent needs no
// data; a snapshot brings all of it; a seed and SUBSUME take over keys that a record named until then. SUBSUME
// takes nothing from a neighbour that is being removed, and SPLIT leaves nothing to one (options.Gone, which is
// asked under Owners, as its answer is changed under it). In a crash, the records and the data are lost together or not at
// all: Replace makes durable what was seen before it (E9), and everything else is in one batch.
package apply
