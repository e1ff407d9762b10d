package shard

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Result is the outcome of applying one command.
type Result struct {
	// Revision is the response's header.revision: the revision of the write, or the
	// shard's last one when nothing changed.
	Revision Revision
	// Response is the etcdserverpb response of the command's kind, without a Header; nil when Err
	// is set and for kinds without a response (CLOSE, COMPACT, INIT).
	Response proto.Message
	// Err is a refusal (errors.go); nothing was applied.
	Err error
}

// View is a consistent summary of what a replica has applied. It is a value that
// any goroutine may keep.
type View struct {
	Applied uint64 // Raft index
	Rev     Revision
	// Floor >= Rev; no later write gets a revision <= Floor (R4).
	Floor Revision
	// Compacted is the highest compacted revision, 0 when none. Reads below it are
	// refused, reads at it are allowed.
	Compacted Revision
	// Descriptor is nil until the shard's INIT command was applied.
	Descriptor *Descriptor
	// Child is the shard that was split off from this one last. Other nodes' maps may not contain
	// it yet, so requests for its keys are answered with it.
	Child *Descriptor
	// Poisoned replicas were told to begin without their data. They have no Descriptor, apply
	// nothing and serve nothing until they are replaced.
	Poisoned bool
	// Frozen is set while the shard is being merged into its left neighbour, and for ever
	// afterwards. The shard then has no Descriptor and serves nothing.
	Frozen *Frozen
	// Since is the Raft index of the split or merge, or of the INIT after a split, that gave the
	// shard its present keys; 0 for none. No replica may start from a log that reaches back to it,
	// because older entries concern keys that belong to another shard by now.
	Since uint64
	// Reserved is nil while any proposer may assign revisions above Floor (R5).
	Reserved *Reservation
}

// WrongShard refuses a request that was routed by a different descriptor.
func (v View) WrongShard(id ID) error {
	if v.Descriptor == nil {
		return v.Absent(id)
	}
	e := &WrongShardError{Shard: id}
	for _, d := range []*Descriptor{v.Descriptor, v.Child} {
		if d != nil {
			e.Descriptors = append(e.Descriptors, d)
		}
	}
	return e
}

// Absent refuses any request to a replica without a Descriptor.
func (v View) Absent(id ID) error {
	if v.Poisoned || v.Frozen != nil {
		return &NoReplicaError{Shard: id}
	}
	return fmt.Errorf("shard %s waits to be initialised: %w", id, ErrUnavailable)
}
