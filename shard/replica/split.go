package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lni/dragonboat/v4"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Split gives the child's keys away; rest is what the shard keeps. Call it on the group's leader. It does nothing if
// that was done already. After an error the split may have happened all the same.
func (r *Replica) Split(ctx context.Context, rest, child *shard.Descriptor) error {
	gave := func() bool { c := r.View().Child; return c != nil && c.ID == child.ID }
	if gave() {
		return nil
	}
	err := r.reshape(ctx, &shardpb.Command{Kind: shardpb.Kind_SPLIT, Epoch: rest.Epoch - 1, Descriptor_: rest.Proto(), Child: child.Proto()})
	if err != nil && !gave() {
		return fmt.Errorf("split shard %s at %q: %w", r.id, child.Span.Start, err)
	}
	r.proclaim()
	return nil
}

// Initialise gives the shard its first descriptor, if it has none.
func (r *Replica) Initialise(ctx context.Context, d *shard.Descriptor) error {
	if r.View().Descriptor != nil {
		return nil
	}
	if err := r.do(ctx, &shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: d.Proto()}); err != nil {
		return fmt.Errorf("initialise shard %s: %w", r.id, err)
	}
	return nil
}

// do proposes a command and waits for its outcome.
func (r *Replica) do(ctx context.Context, cmd *shardpb.Command) error {
	done := make(chan shard.Result, 1)
	r.Propose(cmd, func(res shard.Result) { done <- res })
	select {
	case res := <-done:
		return res.Err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, context.Cause(ctx))
	}
}

// reshape is do for a command that gives leases a new home. Without abdicate they would start there with their whole
// TTL (L9).
func (r *Replica) reshape(ctx context.Context, cmd *shardpb.Command) error {
	resume, err := r.abdicate(ctx)
	if err != nil {
		return err
	}
	defer resume()
	return r.do(ctx, cmd)
}

const (
	// braceRounds bounds how often Brace syncs the store, until it takes less than braceEnough: what was committed
	// meanwhile is left for the sync that requests wait for.
	braceRounds = 3
	braceEnough = 15 * time.Millisecond
	// braceHold is for how long a node gathers nothing after Brace: more than from there to the sync, if all goes well.
	braceHold = 200 * time.Millisecond
)

// Brace stores what this replica has applied, and what it applies meanwhile mostly. What changes which
// keys a shard has is stored with all that came before it, and requests wait for that. If they will wait for a sync too,
// durably leaves little for that.
func (r *Replica) Brace(durably bool) error {
	err := r.machine.StoreAside()
	if err == nil && durably {
		time.AfterFunc(braceHold, r.machine.HoldGathering())
		err = r.braceStore()
	}
	if err != nil {
		return fmt.Errorf("store what shard %s has: %w", r.id, err)
	}
	return nil
}

// braceStore has little left in the store that is not durable.
func (r *Replica) braceStore() error {
	for range braceRounds {
		began := time.Now()
		if err := r.host.cfg.Engine.Sync(); err != nil {
			return err
		}
		if time.Since(began) < braceEnough {
			break
		}
	}
	return nil
}

// LeaveSeed returns when this replica has applied the split that creates the child, and has stored the seed with
// which this node's replica of the child begins. The seed is as durable as the split: a node that loses one of them
// in a crash loses both, and the log restores them (P14).
func (r *Replica) LeaveSeed(ctx context.Context, child *shard.Descriptor) error {
	fail := func(err error) error { return fmt.Errorf("seed of shard %s: %w", child.ID, err) }
	own, here := child.ReplicaOn(r.host.cfg.Node)
	if !here {
		return fail(errors.New("this node has no replica of it"))
	}
	if err := r.waitView(ctx, func(v shard.View) bool { return v.Descriptor != nil && v.Descriptor.Epoch >= child.Epoch }); err != nil {
		return fail(fmt.Errorf("wait for shard %s to be split: %w", r.id, err))
	}
	seed, err := r.host.cfg.Engine.Local(child.ID, own.ID, apply.SeedKind)
	if err != nil {
		return fail(err)
	}
	if began, running := r.host.Replica(child.ID); seed == nil && (!running || began.View().Descriptor == nil) {
		return fail(errors.New("there is none: a snapshot took the replica past the split"))
	}
	return nil
}

// SecureSeed is LeaveSeed, but returns only when the seed is durable. From then on the child's replica can begin,
// whatever happens to the node and to the logs of other replicas. The sync yields to requests.
func (r *Replica) SecureSeed(ctx context.Context, child *shard.Descriptor) error {
	if err := r.LeaveSeed(ctx, child); err != nil {
		return err
	}
	if err := r.host.cfg.Engine.SyncAtLeisure(); err != nil {
		return fmt.Errorf("seed of shard %s: %w", child.ID, err)
	}
	return nil
}

// proclaim makes the leader tell the other replicas the commit index at once. While CPUs are short, it would
// otherwise do so only with the next batch, because no request waits for it.
func (r *Replica) proclaim() {
	_, _ = r.barrier.ask()
}

// weanPause is the time between two looks at whether the log was cut.
const weanPause = 5 * time.Millisecond

// snapshotTimeout bounds a replica's own snapshot, which is only a record.
const snapshotTimeout = 5 * time.Second

// Weaned reports whether the log begins after the last split.
func (r *Replica) Weaned() bool {
	since := r.View().Since
	if r.weaned.Load() >= since {
		return true
	}
	first, err := r.logBegins()
	if err != nil || first <= since {
		return false
	}
	r.weaned.Store(since)
	return true
}

// mayCut reports whether the log may be truncated up to what has been applied. It may not be truncated past a split
// or merge before Wean was called for it (P14).
func (r *Replica) mayCut() bool { return r.weaning.Load() >= r.View().Since || r.Weaned() }

// Wean truncates the log past the split or merge that gave the shard the epoch, and returns when that is done. A replica
// that joins later then receives the shard's data. With a log from the beginning it would write keys that have since been
// given away, which another replica on its node may hold, or it would need a seed that it does not have. Later entries
// are kept, so that replicas that are a little behind can continue from the log. The caller knows that what that split
// or merge handed over is durable on a majority of the nodes (P14). So a replica that has not applied it waits for it:
// the log that it will get is not truncated yet. One that has applied a later one refuses: of that one nobody
// knows it.
func (r *Replica) Wean(ctx context.Context, epoch uint64) error {
	fail := func(err error) error { return fmt.Errorf("cut the log of shard %s: %w", r.id, err) }
	if err := r.waitView(ctx, func(v shard.View) bool { return !unborn(v) && (v.Descriptor == nil || v.Descriptor.Epoch >= epoch) }); err != nil {
		return fail(fmt.Errorf("wait for epoch %d: %w", epoch, err))
	}
	allowed := false
	for {
		view := r.View()
		switch {
		case view.Descriptor == nil:
			return fail(view.Absent(r.id))
		case view.Descriptor.Epoch != epoch:
			return fail(fmt.Errorf("another split or merge came after epoch %d: %w", epoch, shard.ErrUnavailable))
		case r.Weaned():
			return nil
		case !allowed:
			r.allowCut(view.Since)
			allowed = true
		}
		cut := dragonboat.SnapshotOption{OverrideCompactionOverhead: true}
		if view.Applied > view.Since { // otherwise no overhead means the same
			cut.CompactionIndex = view.Since
		}
		made, err := r.snapshot(ctx, cut)
		if err == nil && !made {
			err = r.stir(ctx)
		}
		if err != nil {
			return fail(err)
		}
		select {
		case <-time.After(weanPause):
		case <-ctx.Done():
			return fail(context.Cause(ctx))
		}
	}
}

// allowCut lets the log be truncated up to what has been applied, until the next split or merge.
func (r *Replica) allowCut(since uint64) {
	for known := r.weaning.Load(); known < since && !r.weaning.CompareAndSwap(known, since); {
		known = r.weaning.Load()
	}
}

// snapshot makes a snapshot. If nothing was applied since the last one, there is none to make, and made is false.
func (r *Replica) snapshot(ctx context.Context, o dragonboat.SnapshotOption) (made bool, err error) {
	q, err := r.host.nh.RequestSnapshot(uint64(r.id), o, snapshotTimeout+r.host.barriers.slack)
	if err != nil {
		return false, fmt.Errorf("ask for a snapshot: %w: %w", refusal(err), err)
	}
	select {
	case result := <-q.ResultC():
		if !result.Completed() && !result.Rejected() {
			return false, fmt.Errorf("take a snapshot: %w", shard.ErrUnavailable)
		}
		return result.Completed(), nil
	case <-ctx.Done():
		return false, fmt.Errorf("wait for a snapshot: %w", context.Cause(ctx))
	}
}

// stir appends an empty entry to the log. A shard that nobody writes to would otherwise keep the rest of its log
// after the last snapshot for ever, on followers too: dragonboat forwards the entry from there to the leader. It is
// an empty batch that nobody waits for (P1), marked as coming from this process, which may have revisions reserved.
func (r *Replica) stir(ctx context.Context) error {
	data, err := (&shardpb.Batch{Format: 1, NodeId: uint64(r.host.cfg.Node), Incarnation: r.host.cfg.Incarnation}).MarshalVT()
	if err != nil {
		return fmt.Errorf("encode an empty batch: %w", err)
	}
	q, err := r.host.nh.Propose(r.proposer.session, data, snapshotTimeout+r.host.barriers.slack)
	if err != nil {
		return fmt.Errorf("ask for an entry: %w: %w", refusal(err), err)
	}
	select {
	case <-q.ResultC(): // whatever the result: the log is looked at again
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for an entry: %w", context.Cause(ctx))
	}
}

// logBegins returns the first index in the replica's log.
func (r *Replica) logBegins() (uint64, error) {
	log, err := r.host.nh.GetLogReader(uint64(r.id))
	if err != nil {
		return 0, fmt.Errorf("look at the log of shard %d: %w: %w", r.id, shard.ErrUnavailable, err)
	}
	first, _ := log.GetRange()
	return first, nil
}
