// Package placement keeps the cluster's one table of who holds what: nodes,
// shards, the compacted revision and cluster-wide settings.
//
//	log of the meta group --Apply--> State --Map--> immutable Map --> routers, nodes
//	                                   |               |
//	                            Snapshot/Restore   UpdateSince --> Map.Apply on nodes
//	                                                               without a meta replica
//	Map + Load + Rules + now --Plan--> Steps and Reasons
//
// It decides and remembers; it does nothing. No goroutine, clock, lock or I/O is
// in here: a Raft group feeds State, others carry Maps and updates around. The table
// refuses to learn what only the shards know (sizes, load, who leads now); Plan is told
// it with every call, as values, and others carry its steps out.
//
// Invariants, numbered because code elsewhere cites them. Audit checks all that a
// single map can show. Plan has rules of its own, L1 to L6, stated there.
//
//	P1  The spans of the shards are disjoint and cover the keyspace, in every map.
//	P2  IDs of nodes, shards and replicas are never given twice: each is below its
//	    next ID, next IDs only rise, and removed nodes stay as tombstones.
//	P3  No two neighbours share a slot, and no two shards do while there are at
//	    most 256 of them.
//	P4  A shard has at least one voter and at most one replica per node; each
//	    replica is on a node that is not removed, and the preferred node votes.
//	P5  Names and peer addresses differ between nodes that are not removed;
//	    incarnations differ between all nodes ever known.
//	P6  Every change raises the map's version by exactly one. A command that is
//	    refused, or that finds its work done, changes nothing.
//	P7  The compacted revision never falls.
//	P8  Equal logs give equal bytes: nothing here depends on anything but the
//	    commands and their order.
//	P9  A shard is held by one operator at most, and no replica of it changes but by
//	    that one. What an operator reserved (IDs, a slot) nobody else is given.
//	P10 A command with an ID changes the map once, however often it is in the log. The
//	    next time it is answered as it was then, or TOO_LATE when that is long ago.
//
// What if a controller acts on an old map? Changes of a shard compare its
// generation; the loser gets CONFLICT and reads again (testdata/update_shard.txt).
// What if the proposer of a command hears nothing? It proposes the command again, with
// the ID and the version that it had (testdata/again.txt).
// What if a node comes back without its data? Its incarnation differs, so it is not
// taken for the node it was (testdata/wiped_node.txt).
package placement
