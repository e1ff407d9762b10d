// Package adminapi serves flotilla.admin.v1: what a cluster consists of, how loaded it is,
// what the balancer would do, and what administrators want done.
//
// It owns the presentation, in the names that administrators use, and makes no decisions:
// the map and the load are given to it, the plan is placement.Plan's, and the placement
// table determines which changes are allowed. It never waits for a change it has started.
//
// Invariants:
//
//	V1  An answer is derived from one map and one load, so its parts are consistent.
//	V2  Unknown values are reported as unknown, and old values with their age.
//	V3  A change is decided on one reading of the map and refused if the shard has changed
//	    by the time it is applied. A dry run is refused for the same reasons and changes nothing.
package adminapi
