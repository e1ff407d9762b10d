// Package testcluster runs a cluster of real nodes in one test process.
//
// The nodes are real and their environment is simulated: each has its own clock, which a
// test can skew; its own disk, whose free space a test decides; and all of them
// dial through one network, whose links can be cut and slowed and can
// damage what they carry. Stop is a clean shutdown; tests that need a crash run processes (package proccluster).
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
//	T3  A cut link loses nothing and delivers nothing: data in flight arrives when
//	    the link is restored, as with TCP. Not even the end of a connection gets through.
//	T4  Nothing waits for a fixed time; Eventually waits for a condition.
package testcluster
