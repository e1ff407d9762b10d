package replica

import (
	"context"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const (
	// beginPatience is how long a request waits at a shard that pauses. A pause ends within milliseconds, unless a
	// node fails just then.
	beginPatience = time.Second
	// beginnersMax bounds the writes that wait for the end of a pause, each on a goroutine of its own. It is about what
	// a busy shard receives in 100 ms. Writes beyond it are refused, and the router retries them.
	beginnersMax = 4096
)

// pauses reports whether the shard serves nothing at the moment, but its keys will soon be served again, here or by
// another shard. There are two reasons: the shard was split off and has not begun, or it is frozen for a merge.
//
// Requests reach a shard that has not begun because the parent, or a table that lists both shards, sent them here.
func (r *Replica) pauses(v shard.View) bool {
	return v.Descriptor == nil && !v.Poisoned && r.heir(v.Frozen) == nil
}

// Unborn reports whether the shard has yet to begin on this replica.
func (r *Replica) Unborn() bool { return unborn(r.View()) }

// heir returns the shard that has taken over the keys of this frozen shard on this node, or nil if none has yet. Once
// a shard has taken the keys, the merge is committed, so routers may be told about that shard.
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

// Begun waits until the shard no longer pauses, for beginPatience at most, and returns the replica's view then.
func (r *Replica) Begun(ctx context.Context) shard.View {
	ctx, cancel := context.WithTimeout(ctx, beginPatience)
	defer cancel()
	// The error is not needed: the view shows why the wait ended.
	_ = r.waitView(ctx, func(v shard.View) bool { return !r.pauses(v) })
	return r.View()
}

// Refusal returns the error for a request that came to a replica without a descriptor.
func (r *Replica) Refusal(v shard.View) error {
	if heir := r.heir(v.Frozen); heir != nil {
		return &shard.WrongShardError{Shard: r.id, Descriptors: []*shard.Descriptor{heir}}
	}
	return v.Absent(r.id)
}

// proposeOnceBegun proposes a command once the shard no longer pauses. If the pause does not end in time, done gets
// the error why.
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

// reshaped wakes the requests that wait at any shard of the node, because this shard now owns other keys: a pause may
// be over.
func (h *Host) reshaped() { h.Each((*Replica).wakeWaiters) }
