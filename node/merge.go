package node

import (
	"context"
	"errors"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// merger carries out MERGEs (docs/decisions/0017-merges.md):
//
//	PREPARED   all replicas of both shards are well, and on the same nodes
//	STARTED    the right shard is frozen, and that is durable on every node
//	COMMITTED  the table gives the left shard the keys of both; it takes them; its log is cut
//	           behind that
//
// From when the right shard is frozen until the left one has its keys nobody serves them. What
// keeps that from being short gives the merge up, before it is COMMITTED: then the leader of
// the right shard finds it frozen by an operator that is not in the table, and thaws it (agent).
type merger struct{ *controller }

// MergeSteps are the steps of a MERGE, as Knobs.Operator gets them.
func MergeSteps() []string {
	return []string{stepBrace, stepFreeze, stepSecureFrozen, stepCede, stepSubsume, stepSealed, stepMerged}
}

const (
	stepBrace        = "the merge is started"
	stepFreeze       = "the right shard is frozen"
	stepSecureFrozen = "that it is frozen is made durable"
	stepCede         = "the merge is committed"
	stepSubsume      = "the left shard takes the keys"
	stepSealed       = "the log is cut behind the merge"
	stepMerged       = "the merge is finished"
)

const (
	// mergePatience is how long a merge waits for all replicas before it is cancelled.
	mergePatience = 30 * time.Second
	// frozenPatience is how long the right shard may be frozen until all its nodes have said
	// so. It serves nothing meanwhile.
	frozenPatience = 2 * time.Second
)

// run implements runner.
func (g *merger) run(ctx context.Context, o *placement.Operator) error {
	began := time.Now()
	for {
		m, now, err := g.look(ctx, o)
		if err != nil || now == nil {
			return err
		}
		switch now.Phase {
		case placementpb.Phase_PREPARED:
			err = g.prepare(ctx, m, now, began)
		case placementpb.Phase_STARTED:
			err = g.freeze(ctx, m, now)
		default:
			err = g.settle(ctx, m, now)
		}
		if err != nil {
			return err
		}
	}
}

// prepare starts the merge once all replicas of both shards are well, and gives it up when
// that takes too long. It returns for each look.
func (g *merger) prepare(ctx context.Context, m *placement.Map, o *placement.Operator, began time.Time) error {
	err := g.ready(ctx, m, o)
	switch {
	case err == nil:
		if err := g.step(ctx, stepBrace); err != nil {
			return err
		}
		return g.advance(ctx, o, placementpb.Phase_STARTED)
	case time.Since(began) > mergePatience:
		return g.giveUp(ctx, o, err)
	}
	return rest(ctx)
}

// ready says what is missing.
func (g *merger) ready(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	left, right := m.Shard(o.Shard), m.Shard(o.With)
	if err := placement.Together(left, right); err != nil {
		return err
	}
	for _, d := range []*shard.Descriptor{left, right} {
		reports := g.reports(ctx, m, d)
		if _, err := well(d, reports); err != nil {
			return err
		}
		if err := abreast(d, reports); err != nil {
			return err
		}
	}
	return nil
}

func (g *merger) giveUp(ctx context.Context, o *placement.Operator, why error) error {
	g.node.log.Warn("giving up a merge", "operator", o.ID, "shard", o.Shard, "with", o.With, "error", why)
	return g.node.CancelOperator(ctx, o.Shard, o.ID)
}

// freeze makes sure that no replica of the right shard touches its keys any more, wherever it
// is and whatever happens to its node. Then there is no way back; without it, there is no
// other. From here on nobody serves the keys, so what can be known is asked before.
func (g *merger) freeze(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	into, right := m.Merging(o)
	var leader shard.Replica
	patience, cancel := context.WithTimeout(ctx, frozenPatience)
	defer cancel()
	err := until(patience, func() (err error) {
		leader, err = leaderOf(g.reports(patience, m, into))
		return err
	})
	if err == nil {
		err = g.step(ctx, stepFreeze)
	}
	froze := time.Now()
	if err == nil {
		err = g.freezeRight(ctx, m, o, into, right)
	}
	if err != nil && ctx.Err() == nil {
		return g.giveUp(ctx, o, err)
	}
	if err := errors.Join(err, g.step(ctx, stepCede)); err != nil {
		return err
	}
	if err := g.advance(ctx, o, placementpb.Phase_COMMITTED); err != nil {
		return err
	}
	// Nothing else can come of it now, so the table need not be read again.
	if err := g.subsume(ctx, m, leader.Node, o, into, right); err != nil {
		return err
	}
	g.node.log.Info("a shard was merged", "shard", into.ID, "with", right.ID, "key", string(right.Span.Start), "pause", time.Since(froze))
	return nil
}

func (g *merger) freezeRight(ctx context.Context, m *placement.Map, o *placement.Operator, into, right *shard.Descriptor) error {
	merge := &routerpb.Merge{Descriptor_: into.Proto(), Right: right.Proto(), OperatorId: o.ID}
	patience, cancel := context.WithTimeout(ctx, frozenPatience)
	defer cancel()
	err := until(patience, func() error {
		return g.orderLeader(patience, m, right, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_Freeze{Freeze: merge}})
	})
	if err != nil {
		return err
	}
	if err := g.step(ctx, stepSecureFrozen); err != nil {
		return err
	}
	return g.everyReplica(ctx, right, frozenPatience, func(ctx context.Context, r shard.Replica) error {
		return g.order(ctx, m, r.Node, &routerpb.DirectRequest{Shard: uint64(right.ID), Order: &routerpb.DirectRequest_SecureFrozen{SecureFrozen: merge}})
	}).all(right)
}

// subsume has the left shard take the keys, unless it has.
func (g *merger) subsume(ctx context.Context, m *placement.Map, leader shard.NodeID, o *placement.Operator, into, right *shard.Descriptor) error {
	if err := g.step(ctx, stepSubsume); err != nil {
		return err
	}
	return g.order(ctx, m, leader, &routerpb.DirectRequest{Shard: uint64(into.ID), Order: &routerpb.DirectRequest_Subsume{
		Subsume: &routerpb.Merge{Descriptor_: into.Proto(), Right: right.Proto(), OperatorId: o.ID},
	}})
}

// settle ends a committed merge when the left shard has the keys and no log goes back to
// before, but for those of a few nodes that are down. The replicas of the right shard are
// removed then (janitor).
func (g *merger) settle(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	into, right := m.Merging(o)
	leader, err := leaderOf(g.reports(ctx, m, into))
	if err == nil {
		err = g.subsume(ctx, m, leader.Node, o, into, right)
	}
	if err != nil {
		g.node.log.Info("a merge goes on", "operator", o.ID, "shard", o.Shard, "with", o.With, "error", err)
		return rest(ctx)
	}
	if err := g.step(ctx, stepSealed); err != nil {
		return err
	}
	if err := g.wean(ctx, m, into); err != nil {
		return err
	}
	if err := g.step(ctx, stepMerged); err != nil {
		return err
	}
	return g.finish(ctx, o)
}
