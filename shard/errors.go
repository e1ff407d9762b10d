package shard

import (
	"errors"
	"fmt"
)

// Refusals: the command or read reached its shard and changed nothing. The etcd API turns each into
// etcd's own error.
var (
	ErrCompacted      = errors.New("revision has been compacted")
	ErrFutureRevision = errors.New("revision is a future revision")
	ErrKeyNotFound    = errors.New("key not found")
	ErrLeaseNotFound  = errors.New("lease not found")
	ErrLeaseExists    = errors.New("lease already exists")
	// ErrLeaseRace: what the command was based on has changed meanwhile (a fence, a reign, an
	// incarnation); its sender must look again.
	ErrLeaseRace = errors.New("lease changed meanwhile")
	ErrNoSpace   = errors.New("no space: the store is at its limit")
	// ErrCorrupt: the stored data contradicts itself; the shard must not serve it.
	ErrCorrupt = errors.New("stored data is corrupt")
)

// Outcomes of trying to reach a shard. Certain failures (nothing was applied) may
// be retried; ErrUnknownOutcome may not, unless the write is idempotent.
var (
	// ErrUnknownOutcome: the command was sent or proposed, and whether it was or
	// will be applied is not known. It is never a "no".
	ErrUnknownOutcome = errors.New("outcome unknown: the write may or may not have been applied")
	// ErrUnavailable: the shard is unreachable or has no leader at the moment; certain.
	ErrUnavailable = errors.New("shard unavailable")
	// ErrOverloaded: a bounded queue was full; certain.
	ErrOverloaded = errors.New("too many requests")
	// ErrClockUntrusted: this node's clock is too far from the majority's; certain.
	ErrClockUntrusted = errors.New("clock is out of bounds")
	// ErrStopped: the node is shutting down; certain.
	ErrStopped = errors.New("node is stopping")
	// ErrLargeAnswer: the answer exists, and is too large to be sent from one node to another. A write was applied.
	ErrLargeAnswer = errors.New("the answer is too large for one message")
)

// WrongShardError says that the request was routed by a stale map and refused
// whole. Descriptors carry what the refusing replica knows now, so that the router
// needs no further lookup. It is certain: nothing was applied.
type WrongShardError struct {
	Shard       ID
	Descriptors []*Descriptor
}

func (e *WrongShardError) Error() string {
	return fmt.Sprintf("shard %d does not own these keys at this epoch", e.Shard)
}

// NotLeaderError says that the node does not lead the shard; nothing was proposed.
type NotLeaderError struct {
	Shard ID
	// Leader is the node believed to lead, or 0 when not known.
	Leader NodeID
}

func (e *NotLeaderError) Error() string {
	return fmt.Sprintf("not leader of shard %d (leader hint: node %s)", e.Shard, e.Leader)
}

// NoReplicaError says that the node holds no serving replica of the shard.
type NoReplicaError struct{ Shard ID }

func (e *NoReplicaError) Error() string {
	return fmt.Sprintf("no serving replica of shard %d on this node", e.Shard)
}

// NotClosedError says that a read at a revision arrived before the shard was closed to it: later
// writes could still get lower revisions. The caller closes the shard and retries.
type NotClosedError struct {
	Shard ID
	Floor Revision
}

func (e *NotClosedError) Error() string {
	return fmt.Sprintf("shard %d is closed only to revision %d", e.Shard, e.Floor)
}

// CompactedError says up to where history was compacted. It is an ErrCompacted.
type CompactedError struct{ Compacted Revision }

func (e *CompactedError) Error() string {
	return fmt.Sprintf("history is compacted up to revision %d", e.Compacted)
}

// Unwrap makes errors.Is(err, ErrCompacted) true.
func (e *CompactedError) Unwrap() error { return ErrCompacted }

// UnregisteredLeaseError refuses to attach a key to a lease that is not registered with this shard.
// It is certain: nothing was applied. The caller registers the shard with the lease's home and
// tries again.
type UnregisteredLeaseError struct {
	Shard ID
	Lease int64
	// Fence must be passed to REGISTER, which is refused if keys of the lease may have been
	// detached here since.
	Fence uint64
}

func (e *UnregisteredLeaseError) Error() string {
	return fmt.Sprintf("shard %d has not registered lease %x", e.Shard, e.Lease)
}
