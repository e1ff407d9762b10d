package replica

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const (
	// beginPatience is how long a request waits for a shard that has not begun. It was routed here by the shard that
	// was split, or by a table that lists both shards, so the shard begins within milliseconds unless a node fails
	// just then.
	beginPatience = time.Second
	// beginnersMax bounds the writes that wait for this, each on a goroutine. It is about what a busy shard receives
	// in 100 ms. Writes beyond it are refused, and are retried.
	beginnersMax = 4096
)

// unborn reports whether the shard has yet to begin.
func unborn(v shard.View) bool { return v.Descriptor == nil && !v.Poisoned && v.Frozen == nil }

// Begun returns the replica's view once the shard has begun, or is not about to.
func (r *Replica) Begun(ctx context.Context) shard.View {
	ctx, cancel := context.WithTimeout(ctx, beginPatience)
	defer cancel()
	// The view shows why the wait ended.
	_ = r.waitView(ctx, func(v shard.View) bool { return !unborn(v) })
	return r.View()
}

// proposeOnceBegun is Propose for a shard that has yet to begin. If the shard does not begin, done is called with
// why.
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
