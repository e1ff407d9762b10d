// Package etcdapi is what etcd clients see of a node: etcd's gRPC services, its JSON
// gateway and its HTTP endpoints.
//
//	gRPC ──────────────> admit (metadata, metrics) ─> validate ─> KV, Cluster
//	HTTP /v3/ ─ gateway ─┘ (Loopback)                               │
//	HTTP /health, /livez, /readyz, /version, /metrics <─────────────┘
//
// It owns what etcd's API adds to an operation: validation before anything happens,
// headers, error codes and texts, limits on messages and streams. It stores nothing,
// decides nothing about keys or shards, and retries nothing. Messages, error values
// and gateway routes come from etcd's own packages.
//
// Invariants:
//
//	E1  An error leaves this package only through errors.go, except the refusals of
//	    package txn and of the checks here, which are etcd's values already.
//	E2  A write that may have been applied is never answered with an error on which
//	    clientv3 retries writes.
//	E3  Error texts are exactly etcd's, because clients match errors by string.
//	E4  Every RPC of etcd is either served or answered Unimplemented by name.
//	E5  cluster_id, member_id and raft_term are filled in here and only here; the
//	    revision comes from below and is never replaced.
//	E6  A request that reads or writes keys is admitted by the node (package admission)
//	    before any of it is examined. Lease renewals and revocations, watches and
//	    administrative requests are exempt.
//	E7  While authentication is enabled, nothing happens for a caller who may not ask for it. An RPC
//	    without a rule of its own (authorize.go) is for root users.
//	E8  What was read for an answer has room of its own (package admission) until the client has taken the
//	    answer or is gone. What an applied write answers is counted, and never refused.
package etcdapi
