// Package proccluster runs a cluster of real processes for tests that kill, pause
// and restart them.
//
// It owns the processes, their ports, directories and logs. It does not know what
// the nodes serve: a Program says how to run one, and a ready line says when it serves.
// The usual program is the test binary itself, executed again (Main, Self), so that a test can
// give a node what the production binary does not offer.
//
// Invariants:
//
//	P1  No process outlives the test: not a failed one, not a killed one (Linux).
//	P2  A node keeps its ports for the life of the cluster, also while it is down, and
//	    no other cluster on the machine is given them.
//	P3  A node that ends without being told to is remembered: see Crashes.
//	P4  Everything a node printed is kept in one file across its restarts, and the end
//	    of it is shown when the test fails.
package proccluster
