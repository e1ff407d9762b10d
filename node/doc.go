// Package node is one Flotilla process. It wires the other packages together and defines
// the order in which they start and stop.
//
//	identity ─> peer port ─> bootstrap or join ─> engine, Raft ─> meta group ─> shards
//	        ─> router ─> etcd API on the client port ─> "ready"
//
// The start sequence is in start.go, read top to bottom; Close undoes it in reverse.
// New starts nothing.
//
// Invariants:
//
//	D1  A data directory belongs to one node of one cluster for ever. The identity file
//	    is written and synced before anything that could make a promise to other nodes.
//	D2  A node that lost its data is a new node: its incarnation differs, and the
//	    cluster refuses it under the old name.
//	D3  The node proposes nothing before it has compared its clock with its peers'.
//	D4  The node serves clients only once every local replica has been initialised and has applied
//	    what was acknowledged before, unless that takes seconds: otherwise revisions could decrease.
//	D5  The parts of a node whose memory has bounds of its own leave a fifth of the memory
//	    budget to everything else. While the live heap approaches the budget, the node accepts
//	    nothing that a client could ask again (memory.go).
package node
