// Package peer builds, starts and stops the servers that are measured or recorded:
// each a real operating system process on loopback, with its own data directory.
//
//	Kind --Build--> binary --Start(nodes)--> Cluster --Kill, Restart, Stop--> nothing left running
//
// It knows how each kind of server is told who its peers are. It sends no load and
// measures nothing but what the operating system says about the processes.
//
// Invariants:
//
//	P1  Every address is on loopback.
//	P2  Stop, or a failed Start, leaves no process; it signals only those it started.
//	P3  Start returns when every node answers a linearizable read, not before.
package peer
