package shard

import "strconv"

// ID names a shard. IDs come from the meta group and are never reused.
type ID uint64

// MetaID is the shard ID of the meta group, which holds the placement table.
const MetaID ID = 1

// FirstDataID is the lowest ID a shard of the user keyspace can have.
const FirstDataID ID = 2

func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

// NodeID names a node (one process with one data directory). It is what the etcd
// API shows as a member ID. Node IDs come from the meta group and are never reused.
type NodeID uint64

func (id NodeID) String() string { return strconv.FormatUint(uint64(id), 16) }

// ReplicaID names a replica within its shard. A replica that lost its log or its data must come
// back under a new ReplicaID: under the old one promises were made to the Raft group that it can no
// longer keep.
type ReplicaID uint64
