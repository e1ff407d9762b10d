// Package robustness runs a cluster under load and faults, and judges what its clients
// were told.
//
// It owns the workload, the faults and the order of a run. It knows a store only as a
// System with etcd endpoints, so that the same run against the real etcd shows that
// the harness raises no false alarm. The verdict is package history's.
//
//	seed --> generators --> clients --etcd API--> System <-- attacks <-- plan <-- seed
//	              \____________ history.Recorder ___________/
//	load and faults end -> heal -> leases end -> watch everything from the first revision
//	  -> read everything back, at every revision -> Check
//
// Clients are traders, which read and write; watchers, which watch what they and others
// change in all the ways in which that is done; and lessees, which hold leases and let
// them go in all the ways in which that happens.
//
// Rules:
//
//	B1  What is decided by chance comes from the seed: which requests a client makes
//	    (as far as answers do not steer it), which fault hits which node when.
//	B2  Never more nodes are down at once than the configuration says.
//	B3  An error is a refusal only when the store has said so with certainty. Every
//	    other failed write is unknown, and is never sent again by the harness.
//	B4  A run that ends with a node crashed on its own, or with keys that cannot be
//	    read after the faults are healed, has failed, whatever the history says.
package robustness
