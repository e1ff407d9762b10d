// Package etcdapi is the face a node shows to etcd clients: etcd's gRPC services, its
// JSON gateway and its HTTP endpoints.
//
//	gRPC ──────────────> admit (metadata, metrics) ─> validate ─> KV, Cluster
//	HTTP /v3/ ─ gateway ─┘ (Loopback)                               │
//	HTTP /health, /livez, /readyz, /version, /metrics <─────────────┘
//
// It owns what etcd's API adds around an operation: which requests are refused before
// anything happens, headers, error codes and texts, limits of messages and streams.
// It stores nothing, decides nothing about keys or shards, and retries nothing.
// Messages, error values and gateway routes are etcd's own packages.
//
// Invariants:
//
//	E1  An error leaves this package only through errors.go, except the refusals of
//	    package txn and of the checks here, which are etcd's values already.
//	E2  A write that may have been applied is never answered with an error that
//	    clientv3 retries writes on.
//	E3  A client reads etcd's exact error texts: clients match errors by string.
//	E4  Every RPC of etcd is either served or answered Unimplemented by its name.
//	E5  cluster_id, member_id and raft_term are filled in here and only here; the
//	    revision comes from below and is never replaced.
//	E6  What reads or writes keys has room on the node before anything of it is looked at.
//	    Renewals, revocations, watches and operators' requests need none.
package etcdapi
