// Package adminapi serves flotilla.admin.v1: what a cluster is made of, how loaded it is,
// and what the balancer would do.
//
// It owns how that is told, and decides nothing: the map and the load are given to it,
// the plan is placement.Plan's. It refuses to change anything.
//
// Invariants:
//
//	V1  An answer is made of one map and one load, so its parts fit together.
//	V2  What is not known is told as not known, and what is old with its age.
package adminapi
