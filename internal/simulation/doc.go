// Package simulation runs the planner against a cluster that exists on paper.
//
// It owns the cluster's nodes, shards and load, and a clock of ticks. It knows the
// planner as everybody does, by placement.Plan, and carries out what that says: copies
// take as long as their bytes, and fail when a node does. Nothing here is Raft; what
// is shown is that the planner's decisions, one after the other, lead somewhere and
// come to rest.
//
//	seed --> workload, noise --> Cluster --map, load--> placement.Plan
//	                                ^                        |
//	                                +---- steps, in time ----+
//
// Rules:
//
//	S1  The same configuration and the same calls give the same run, whatever machine.
//	S2  The map is a placement.Map that is audited after every change, so no step of
//	    the planner can break an invariant of the table unnoticed.
//	S3  The planner sees only what nodes that are up would have reported.
package simulation
