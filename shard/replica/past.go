package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// pastPause is the time between two attempts to ask groups whose leader is unknown or changing.
const pastPause = 20 * time.Millisecond

// SeePast returns when the node's replicas have applied everything that was acknowledged before the call. It leaves
// out replicas that are unfit, have not received their shard, or are removed from the node meanwhile. After a kill, the
// last applied writes are only in the log. Until they are replayed, the node does not know revisions that its clients may have seen. If its clock was
// also set back meanwhile, those clients' writes to other shards would get lower revisions.
func (h *Host) SeePast(ctx context.Context) error {
	var behind []*Replica
	h.Each(func(r *Replica) { behind = append(behind, r) })
	for {
		behind = slices.DeleteFunc(unseen(ctx, behind), h.removed)
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-time.After(pastPause):
		case <-ctx.Done():
			return fmt.Errorf("wait for %d replicas, of which shard %s is one, to apply what was acknowledged: %w", len(behind), behind[0].id, context.Cause(ctx))
		}
	}
}

// unseen asks all replicas at once, and returns those that got no answer.
func unseen(ctx context.Context, replicas []*Replica) (behind []*Replica) {
	type answer struct {
		from *Replica
		err  error
	}
	answers := make(chan answer, len(replicas)) // so that late answers do not block
	asked := 0
	for _, r := range replicas {
		if pastless(r) {
			continue
		}
		asked++
		r.StartBarrier(func(_ shard.View, err error) { answers <- answer{r, err} })
	}
	seen := make(map[*Replica]bool, asked)
	for range asked {
		select {
		case a := <-answers:
			seen[a.from] = a.err == nil
		case <-ctx.Done():
		}
	}
	for _, r := range replicas {
		if !pastless(r) && !seen[r] {
			behind = append(behind, r)
		}
	}
	return behind
}

// removed reports whether a replica has left the node for good. Its group answers it no more, however long it is asked.
// A shard that was merged has its past in its left neighbour, whose replica is asked itself.
func (h *Host) removed(r *Replica) bool {
	gone, err := h.gone(r.id, r.replicaID)
	return gone && err == nil
}

// pastless reports whether a replica has nothing to catch up with.
func pastless(r *Replica) bool { return r.Unfit() != "" || unborn(r.View()) }

// unborn reports whether the shard is still to begin.
func unborn(v shard.View) bool { return v.Descriptor == nil && !v.Poisoned && v.Frozen == nil }
