// Package node is one Flotilla process: it wires everything together and decides in
// which order it starts and stops.
//
//	identity ─> peer port ─> bootstrap or join ─> engine, Raft ─> meta group ─> shards
//	        ─> router ─> etcd API on the client port ─> "ready"
//
// The order of starting is in start.go, read top to bottom; Close undoes it in
// reverse. Nothing starts in New.
//
// Invariants:
//
//	D1  A data directory belongs to one node of one cluster for ever; the identity file
//	    is written, synced, before anything that could make a promise to others.
//	D2  A node whose data was lost is a new node: its incarnation differs and the
//	    cluster refuses it under the old name.
//	D3  The node proposes nothing before its clock was compared with its peers'.
//	D4  Clients are served only when every local replica has been initialised, and has applied
//	    what was acknowledged before, unless that takes seconds: or revisions could run back.
//	D5  What the parts of a node keep in memory by bounds of their own leaves a fifth of its
//	    budget to the rest. While what is live comes near the budget, nothing that clients
//	    could ask again is taken in (memory.go).
package node
