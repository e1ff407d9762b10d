// Package robustness runs a cluster under load and faults, and checks what its clients
// observed.
//
// It owns the workload, the faults and the sequence of a run. It knows a store only as a
// System with etcd endpoints, so that the same run against the real etcd shows that
// the harness raises no false alarms. Package history gives the verdict.
//
//	seed --> generators --> clients --etcd API--> System <-- attacks <-- plan <-- seed
//	              \____________ history.Recorder ___________/
//	load and faults end -> heal -> leases end -> watch everything from the first revision
//	  -> read everything back, at every revision -> Check
//
// Clients are traders, which read and write; watchers, which use watches in every way that
// clients do; and lessees, which hold leases and let them end in every possible way.
//
// Rules:
//
//	B1  Every random choice is derived from the seed: which requests a client makes
//	    (as far as responses do not determine them), which fault hits which node when.
//	B2  Never more nodes are down at once than the configuration says.
//	B3  An error is a refusal only when the store has said so with certainty. Every
//	    other failed write is unknown, and is never sent again by the harness.
//	B4  A run that ends with a node crashed on its own, or with keys that cannot be
//	    read after the faults are healed, has failed, whatever the history says.
package robustness
