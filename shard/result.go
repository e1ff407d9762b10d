package shard

import "google.golang.org/protobuf/proto"

// Result is what applying one command gave.
type Result struct {
	// Revision is the response's header.revision: the revision of the write, or the
	// shard's last one when nothing changed.
	Revision Revision
	// Response is the etcdserverpb response of the command's kind, with no Header;
	// nil when Err is set and for kinds that answer nothing (CLOSE, COMPACT, INIT).
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
}
