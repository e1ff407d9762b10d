package apply

import "github.com/flotilla-kv/flotilla/shard"

// Knobs break the invariants on purpose, so that tests can show that the checkers
// notice. The zero value breaks nothing.
type Knobs struct {
	// ForgetApplied makes Open forget that the last entries were applied (against A3).
	ForgetApplied uint64
	// OneSlot makes every shard mint its revisions in slot 0 (against shard.R2).
	OneSlot bool
	// AnyEpoch carries out what was routed by another map (against A7).
	AnyEpoch bool
	// AnyLease attaches keys to leases that are not registered or not there (against L1).
	AnyLease bool
	// AnyFence registers a lease although keys were detached meanwhile (against L6).
	AnyFence bool
	// Now replaces the stamps of commands by the replica's own clock (against A1).
	Now func() shard.Tick
}
