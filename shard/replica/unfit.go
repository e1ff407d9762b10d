package replica

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// unfitPoisoned is why a poisoned replica is unfit (shard.View.Poisoned).
const unfitPoisoned = "poisoned: it missed a split and has not got the data that the others began with"

// Unfit returns why the replica serves nothing and must be replaced; empty when it is healthy. An
// unfit replica stays unfit. It continues to vote and to keep the log, so that the group tolerates
// as many failures as before.
func (r *Replica) Unfit() string {
	if r.View().Poisoned {
		return unfitPoisoned
	}
	if why := r.quarantined.Load(); why != nil {
		return *why
	}
	return ""
}

// Serving returns the node's replica of the shard, if it runs and is fit to serve.
func (h *Host) Serving(id shard.ID) (*Replica, bool) {
	r, ok := h.Replica(id)
	if !ok || r.Unfit() != "" {
		return nil, false
	}
	return r, true
}

// Quarantine permanently ends everything that the replica serves, because its data differs from the
// others'. The quarantine is made durable before it takes effect, so that a restart does not undo it.
func (r *Replica) Quarantine(why string) error {
	if r.Unfit() != "" {
		return nil
	}
	// In a hurry: until then the damaged data is served.
	err := r.host.amend(r.id, r.replicaID, r.host.cfg.Engine.Sync, func(record *shardpb.ReplicaRecord) error {
		if record.Phase >= shardpb.ReplicaRecord_REMOVING {
			return ErrRemoved
		}
		record.Quarantined = why
		return nil
	})
	if err != nil {
		return fmt.Errorf("quarantine shard %s replica %d: %w", r.id, r.replicaID, err)
	}
	r.quarantined.Store(&why)
	r.endReign()
	r.machine.EndFeeds(&shard.NoReplicaError{Shard: r.id})
	r.reportUnfit()
	return nil
}

// Doubt looks at why a read of the replica failed. If its data is damaged, the node hears of it, and the error becomes one
// after which the reader is sent on: other replicas have the data. If there are none, it is final.
func (r *Replica) Doubt(err error) error {
	if errors.Is(err, syscall.EIO) { // the disk's; it may be able to next time
		return fmt.Errorf("replica %d of shard %s cannot be read: %w: %v", r.replicaID, r.id, shard.ErrUnavailable, err) // as below
	}
	if !damage(err) {
		return err
	}
	if doubted := r.host.cfg.Doubted; doubted != nil {
		doubted(r.id)
	}
	what := shard.ErrUnavailable
	if d := r.View().Descriptor; d != nil && len(d.Replicas) == 1 {
		what = shard.ErrCorrupt
	}
	return fmt.Errorf("replica %d of shard %s is damaged: %w: %v", r.replicaID, r.id, what, err) // one kind of error only
}

// damage reports whether an error says that stored data is not what was written. (Pebble marks its errors in a way that
// the standard library's errors.Is does not see.)
func damage(err error) bool { return errors.Is(err, shard.ErrCorrupt) || pebble.IsCorruptionError(err) }

// reportUnfit logs that the replica has to be replaced.
func (r *Replica) reportUnfit() {
	if why := r.Unfit(); why != "" {
		r.host.cfg.Logger.Error("a replica serves nothing and has to be replaced", "shard", r.id, "replica", r.replicaID, "why", why)
	}
}

// Dispute makes a leader refuse writes to keys and leases, or accept them again. They are refused while
// the replicas hold different data and no majority agrees.
func (r *Replica) Dispute(disputed bool) { r.disputed.Store(disputed) }

// Disputed reports whether writes are refused.
func (r *Replica) Disputed() bool { return r.disputed.Load() }

// Damaged reports whether the replica's data differs, or may differ, from the others'.
func (r *Replica) Damaged() bool { return r.quarantined.Load() != nil || r.Disputed() }

// refusing returns why a command of this kind is refused, or nil if it is not.
func (r *Replica) refusing(kind shardpb.Kind) error {
	switch view := r.View(); {
	case r.Unfit() != "":
		return &shard.NoReplicaError{Shard: r.id}
	case view.Descriptor == nil && !awakens(kind):
		return r.Refusal(view)
	case r.Disputed() && changes(kind):
		return fmt.Errorf("the replicas of shard %s hold different things: %w", r.id, shard.ErrCorrupt)
	}
	return nil
}

// changes reports whether commands of this kind may change keys or leases.
func changes(kind shardpb.Kind) bool {
	switch kind {
	case shardpb.Kind_CLOSE, shardpb.Kind_COMPACT, shardpb.Kind_INIT, shardpb.Kind_UPDATE, shardpb.Kind_CHECKSUM, shardpb.Kind_THAW:
		return false
	}
	return true
}
