// Package placement holds the cluster's placement table: nodes, shards and their replicas,
// the compaction revision, cluster-wide settings, and who may do what.
//
//	log of the meta group --Apply--> State --Map--> immutable Map --> routers, nodes
//	                                   |               |
//	                            Snapshot/Restore   UpdateSince --> Map.Apply on nodes
//	                                                               without a meta replica
//	Map + Load + Rules + now --Plan--> Steps and Reasons
//
// It decides and records, and acts on nothing: it has no goroutine, clock, lock or I/O. A Raft
// group drives State, and other packages distribute Maps and updates. The table excludes
// what only the shards know (sizes, load, the current leader); Plan receives that as values
// with every call, and other packages carry out its steps.
//
// Invariants, numbered because code elsewhere cites them. Audit checks all that a
// single map can show. Plan has rules of its own, L1 to L6, stated there.
//
//	P1  The spans of the shards are disjoint and cover the keyspace, in every map.
//	P2  IDs of nodes, shards and replicas are never reused: each is below its
//	    next ID, next IDs only grow, and removed nodes remain as tombstones.
//	P3  No two neighbouring shards share a slot, and no two shards do while there are at
//	    most 256 of them.
//	P4  A shard has at least one voter and at most one replica per node; each
//	    replica is on a node that is not removed, and the preferred node's replica votes.
//	P5  Names and peer addresses differ between nodes that are not removed;
//	    incarnations differ between all nodes ever known.
//	P6  Every change raises the map's version by exactly one. A command that is
//	    refused, or that finds its work already done, changes nothing.
//	P7  The compaction revision never decreases.
//	P8  Equal logs give equal bytes: the state depends on nothing but the
//	    commands and their order.
//	P9  At most one operator holds a shard, and only that operator changes the shard's
//	    replicas. Nothing that an operator has reserved (IDs, a slot) is given to another.
//	P10 A command with an ID changes the map once, however often the log contains it. A
//	    repetition gets the answer of the first time, or TOO_LATE once that is long ago.
//	P11 Authentication is enabled only after the map was armed, with a root user, and by
//	    changes that root users asked for from then on. A user has only roles that exist.
//
// What if a controller acts on an old map? Changes of a shard compare its
// generation; the loser gets CONFLICT and reads again (testdata/update_shard.txt).
// What if the proposer of a command gets no answer? It proposes the command again, with
// the same ID and version (testdata/again.txt).
// What if a node returns without its data? Its incarnation differs, so it is not
// taken for the node it was (testdata/wiped_node.txt).
package placement
