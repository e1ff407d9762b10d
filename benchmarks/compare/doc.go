// Package compare runs the same load against several systems, one at a time, and
// records the results of each round.
//
// Invariants:
//
//	M1  While one system is measured, no other runs.
//	M2  Every system of a round starts with an empty data directory.
//	M3  Rounds alternate in order (A B, B A, A B ...), so that drift over time,
//	    a warming disk or a busy neighbour, does not always favour the same one.
package compare
