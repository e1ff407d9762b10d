// Package adminapi serves flotilla.admin.v1: what a cluster is made of, how loaded it is,
// what the balancer would do, and what people want done about it.
//
// It owns how that is told and asked for, in names that people know, and decides nothing:
// the map and the load are given to it, the plan is placement.Plan's, and what may be done
// is what the placement table takes. It refuses to wait for what it has begun.
//
// Invariants:
//
//	V1  An answer is made of one map and one load, so its parts fit together.
//	V2  What is not known is told as not known, and what is old with its age.
//	V3  A change is decided on the map of one look and refused if the shard is another by
//	    then. A dry run is refused for the same reasons, and changes nothing.
package adminapi
