package replica

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const (
	// beginPatience is how long a request waits at a shard that serves nothing for a moment. It begins, or its
	// keys are taken, within milliseconds, unless a node fails just then.
	beginPatience = time.Second
	// beginnersMax bounds the writes that wait for this, each on a goroutine. It is about what a busy shard receives
	// in 100 ms. Writes beyond it are refused, and are retried.
	beginnersMax = 4096
)

// pauses reports whether the shard serves nothing but may at any moment, or another one its keys: it was split off
// and has not begun (whoever asks comes from the shard that was split, or from a table that lists both), or it is
// being merged.
func (r *Replica) pauses(v shard.View) bool {
	return v.Descriptor == nil && !v.Poisoned && r.heir(v.Frozen) == nil
}

// Unborn reports whether the shard has yet to begin on this replica.
func (r *Replica) Unborn() bool { return unborn(r.View()) }

// heir is the shard that has taken the keys of this one, frozen, on this node; nil: none has. A merge of which that is
// known is committed, so routers may be told of it.
func (r *Replica) heir(f *shard.Frozen) *shard.Descriptor {
	if f == nil {
		return nil
	}
	into, running := r.host.Replica(f.Into.ID)
	if !running {
		return nil
	}
	if d := into.View().Descriptor; d != nil && d.Epoch >= f.Into.Epoch && d.Span.Contains(f.Descriptor.Span.Start) {
		return d
	}
	return nil
}

// Begun returns the view of the replica once the shard serves, or is not about to.
func (r *Replica) Begun(ctx context.Context) shard.View {
	ctx, cancel := context.WithTimeout(ctx, beginPatience)
	defer cancel()
	// Why it ended is in the view.
	_ = r.waitView(ctx, func(v shard.View) bool { return !r.pauses(v) })
	return r.View()
}

// Refusal is what a request is told that came to a replica without a descriptor.
func (r *Replica) Refusal(v shard.View) error {
	if heir := r.heir(v.Frozen); heir != nil {
		return &shard.WrongShardError{Shard: r.id, Descriptors: []*shard.Descriptor{heir}}
	}
	return v.Absent(r.id)
}

// proposeOnceBegun is Propose for a shard that pauses. If that does not end in time, why is
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
		switch {
		case r.pauses(view):
			done(shard.Result{Err: why})
		case view.Frozen != nil:
			done(shard.Result{Err: r.Refusal(view)})
		default:
			r.Propose(cmd, done)
		}
	}()
}

// reshaped has requests look again that wait at other shards of the node: this one has other keys.
func (h *Host) reshaped() { h.Each((*Replica).wakeWaiters) }
