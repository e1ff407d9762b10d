// Package compare runs the same load against several systems, one at a time, and
// keeps what each round gave.
//
// Invariants:
//
//	M1  While one system is measured, no other runs.
//	M2  Every system of a round starts with an empty data directory.
//	M3  Rounds alternate in order (A B, B A, A B ...), so that what drifts with time,
//	    a warming disk or a busy neighbour, does not always favour the same one.
package compare
