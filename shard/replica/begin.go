package replica

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const (
	// beginPatience is how long a request waits at a shard that has not begun. Whoever
	// asks there comes from the shard that was split, or from a table that lists both:
	// it begins within milliseconds, unless a node fails just then.
	beginPatience = time.Second
	// beginnersMax bounds the writes that wait so, each on a goroutine: as many as come for a
	// busy shard in some 100 ms. What comes beyond them is refused, and comes again.
	beginnersMax = 4096
)

// unborn reports whether the shard is still to begin.
func unborn(v shard.View) bool { return v.Descriptor == nil && !v.Poisoned && v.Frozen == nil }

// Unborn reports whether the shard is still to begin on this replica.
func (r *Replica) Unborn() bool { return unborn(r.View()) }

// Begun returns the view of the replica once the shard has begun, or is not about to.
func (r *Replica) Begun(ctx context.Context) shard.View {
	ctx, cancel := context.WithTimeout(ctx, beginPatience)
	defer cancel()
	// Why it ended is in the view.
	_ = r.waitView(ctx, func(v shard.View) bool { return !unborn(v) })
	return r.View()
}

// proposeOnceBegun is Propose for a shard that is still to begin. If it does not, why is
// what done is told.
func (r *Replica) proposeOnceBegun(cmd *shardpb.Command, why error, done func(shard.Result)) {
	if r.beginners.Add(1) > beginnersMax {
		r.beginners.Add(-1)
		done(shard.Result{Err: why})
		return
	}
	go func() {
		view := r.Begun(context.Background())
		r.beginners.Add(-1)
		if unborn(view) {
			done(shard.Result{Err: why})
			return
		}
		r.Propose(cmd, done)
	}()
}
