// Package hlc stamps writes from a hybrid logical clock: it combines the wall clock with the
// revisions that a node has seen. It is the only revision source; a sequencer could replace it.
//
// Invariants:
//
//	C1  A stamp exceeds the tick of every revision the node has seen, in its own shards or
//	    in a message from a peer. So whatever slot it is combined with, the new revision is
//	    above them, and causality that passes through a node is never reversed,
//	    whatever its clock does.
//	C2  A node whose clock is out of bounds stamps nothing.
package hlc

import (
	"sync/atomic"

	"github.com/flotilla-kv/flotilla/internal/clock"
	"github.com/flotilla-kv/flotilla/shard"
)

// Hybrid stamps writes from a wall clock and from the revisions it has seen. It
// is safe for concurrent use.
type Hybrid struct {
	clock clock.Clock
	seen  atomic.Int64           // highest revision seen
	gate  atomic.Pointer[string] // why stamping is refused; nil when it is not
}

// NewHybrid returns a Hybrid over clock that has seen nothing yet.
func NewHybrid(c clock.Clock) *Hybrid { return &Hybrid{clock: c} }

// Observe records that revision r exists somewhere in the cluster.
func (h *Hybrid) Observe(r shard.Revision) {
	for {
		seen := h.seen.Load()
		if int64(r) <= seen || h.seen.CompareAndSwap(seen, int64(r)) {
			return
		}
	}
}

// Seen is the highest revision observed so far.
func (h *Hybrid) Seen() shard.Revision { return shard.Revision(h.seen.Load()) }

// Stamp is the tick for a write that is proposed now, or *UntrustedError.
func (h *Hybrid) Stamp() (shard.Tick, error) {
	if why := h.gate.Load(); why != nil {
		return 0, &UntrustedError{Why: *why}
	}
	return max(h.Now(), h.Seen().Tick()+1), nil
}

// Now is the clock's reading, regardless of what was seen.
func (h *Hybrid) Now() shard.Tick { return shard.TickAt(h.clock.Now()) }

// Distrust makes Stamp fail with the given reason until Trust is called.
func (h *Hybrid) Distrust(why string) { h.gate.Store(&why) }

// Trust ends Distrust.
func (h *Hybrid) Trust() { h.gate.Store(nil) }

// Distrusted returns why the clock is not trusted, or "".
func (h *Hybrid) Distrusted() string {
	if why := h.gate.Load(); why != nil {
		return *why
	}
	return ""
}

// UntrustedError says why this node does not stamp.
type UntrustedError struct{ Why string }

func (e *UntrustedError) Error() string { return "clock is out of bounds: " + e.Why }

// Unwrap makes errors.Is(err, shard.ErrClockUntrusted) true.
func (e *UntrustedError) Unwrap() error { return shard.ErrClockUntrusted }
