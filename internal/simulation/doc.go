// Package simulation runs the planner against a simulated cluster.
//
// It owns the cluster's nodes, shards and load, and a clock of ticks. It calls the
// planner as nodes do, by placement.Plan, and carries out its steps: a copy
// takes time in proportion to its bytes, and fails when a node does. There is no Raft here. It
// shows that the planner's successive decisions reach its goals and then
// stop.
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
