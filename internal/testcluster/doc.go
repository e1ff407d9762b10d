// Package testcluster runs a cluster of real nodes in one test process.
//
// Everything is real but the world around the nodes: each has its own clock, which a
// test can set wrong; its own disk, whose free space a test decides; and one network
// through which all of them dial, whose links can be cut and slowed. Stop is a clean
// stop; tests that need a crash run processes (package proccluster).
//
//	node n1 --Dial--> [network: link n1->n2, link n2->n1] --TCP--> peer port of n2
//
// It owns the nodes, their directories, ports and logs. It asserts nothing about what
// nodes serve.
//
// Invariants:
//
//	T1  When the test ends nothing of the cluster is left: no node, no connection, no
//	    goroutine.
//	T2  A node keeps its addresses for the life of the cluster, also while it is down,
//	    and no other cluster on the machine is given them.
//	T3  A cut link loses nothing and delivers nothing: what was under way arrives when
//	    the link is mended, as TCP does it. Not even the end of a connection passes.
//	T4  Nothing waits for a time to pass; Eventually waits for a condition.
package testcluster
