package node

import (
	"context"
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
//	COMMITTED  the table gives the left shard the keys of both; it takes them; its log is
//	           truncated past that
//
// Nobody serves the right shard's keys from when it is frozen until the left one has them. Anything that would make
// that time long makes the controller give the merge up, as long as it is not COMMITTED. Then the leader of the right
// shard finds it frozen by an operator that is not in the table, and thaws it (agent).
type merger struct{ *controller }

// The steps of a MERGE, as Knobs.Operator gets them.
const (
	stepBrace        = "the merge is started"
	stepFreeze       = "the right shard is frozen"
	stepSecureFrozen = "that it is frozen is made durable"
	stepCede         = "the merge is committed"
	stepSubsume      = "the left shard takes the keys"
	stepSealed       = "the log is cut behind the merge"
	stepMerged       = "the merge is finished"
)

// frozenPatience is how long the right shard may be frozen before all its nodes have confirmed it. It serves nothing
// meanwhile.
const frozenPatience = 2 * time.Second

// next implements runner.
func (g *merger) next(ctx context.Context, m *placement.Map, o *placement.Operator, soFar time.Duration) error {
	switch o.Phase {
	case placementpb.Phase_PREPARED:
		return g.advanceUnless(ctx, g.obstacle(ctx, m, o), soFar, stepBrace, o, placementpb.Phase_STARTED)
	case placementpb.Phase_STARTED:
		return g.merge(ctx, m, o)
	default:
		return g.settle(ctx, m, o)
	}
}

// obstacle returns what prevents a merge from being started.
func (g *merger) obstacle(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	left, right := m.Shard(o.Shard), m.Shard(o.With)
	if err := placement.Together(left, right); err != nil {
		return err
	}
	for _, d := range []*shard.Descriptor{left, right} {
		if _, err := abreast(d, g.reports(ctx, m, d)); err != nil {
			return err
		}
	}
	return nil
}

// merge gives the keys of the right shard to the left one. From the freeze on nobody serves them, so everything that
// can be checked is checked before, and any failure before the point of no return gives the merge up.
func (g *merger) merge(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	into, right := m.Merging(o)
	leader, err := g.awaitLeader(ctx, m, into)
	var pause *paused
	if err == nil {
		g.braceBoth(ctx, m, into, right)
		pause, err = g.freeze(ctx, m, o)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return g.giveUp(ctx, o, err)
	}
	if err := g.advance(ctx, stepCede, o, placementpb.Phase_COMMITTED); err != nil {
		return err
	}
	pause.pass(partCommitted)
	// Nothing else can come of it now, so the table need not be read again.
	if err := g.subsume(ctx, m, o, leader.Node); err != nil {
		return err
	}
	pause.pass(partSubsumed)
	g.node.log.With("shard", into.ID, "with", right.ID, "key", string(right.Span.Start)).Info("a shard was merged", pause.end()...)
	return nil
}

func (g *merger) awaitLeader(ctx context.Context, m *placement.Map, d *shard.Descriptor) (leader shard.Replica, err error) {
	ctx, cancel := context.WithTimeout(ctx, frozenPatience)
	defer cancel()
	err = until(ctx, func() error {
		leader, err = leaderOf(g.reports(ctx, m, d))
		return err
	})
	return leader, err
}

// braceBoth has stored what replicas of both shards have in memory: FREEZE and SUBSUME are stored with it. That of the
// right shard is made durable while nobody serves its keys, and with it all that the nodes have stored until then.
func (g *merger) braceBoth(ctx context.Context, m *placement.Map, left, right *shard.Descriptor) {
	g.brace(ctx, m, left, false)
	g.brace(ctx, m, right, true)
}

// freeze makes sure that no replica of the right shard touches its keys any more, wherever it
// is and whatever happens to its node. It returns the pause that has begun.
func (g *merger) freeze(ctx context.Context, m *placement.Map, o *placement.Operator) (pause *paused, err error) {
	if err := g.step(ctx, stepFreeze); err != nil {
		return nil, err
	}
	_, right := m.Merging(o)
	merge := orderOf(m, o)
	patience, cancel := context.WithTimeout(ctx, frozenPatience)
	defer cancel()
	secured := g.secureFrozen(patience, m, right, merge)
	err = until(patience, func() error {
		leader, err := leaderOf(g.reports(patience, m, right))
		if err != nil {
			return err
		}
		pause = g.node.pauses.begin(placementpb.OperatorKind_MERGE)
		return g.order(patience, m, leader.Node, &routerpb.DirectRequest{
			Shard: uint64(right.ID), Order: &routerpb.DirectRequest_Freeze{Freeze: merge},
		})
	})
	if err != nil {
		return nil, err
	}
	pause.pass(partFrozen)
	if err := g.step(ctx, stepSecureFrozen); err != nil {
		return nil, err
	}
	all := <-secured
	pause.pass(partDurable)
	return pause, all.all()
}

// secureFrozen has all replicas of the right shard say when they are frozen, durably, each as soon as it has applied that.
// The orders are on their way before the freeze, for which they wait there.
func (g *merger) secureFrozen(ctx context.Context, m *placement.Map, right *shard.Descriptor, merge *routerpb.Merge) <-chan tally {
	done := make(chan tally, 1)
	go func() {
		done <- g.orderAll(ctx, m, right, frozenPatience, &routerpb.DirectRequest{
			Shard: uint64(right.ID), Order: &routerpb.DirectRequest_SecureFrozen{SecureFrozen: merge},
		})
	}()
	return done
}

// subsume makes the left shard take the keys, unless it has done so.
func (g *merger) subsume(ctx context.Context, m *placement.Map, o *placement.Operator, leader shard.NodeID) error {
	if err := g.step(ctx, stepSubsume); err != nil {
		return err
	}
	return g.order(ctx, m, leader, &routerpb.DirectRequest{
		Shard: uint64(o.Shard), Order: &routerpb.DirectRequest_Subsume{Subsume: orderOf(m, o)},
	})
}

// settle ends a committed merge once the left shard has the keys and its logs are truncated past the merge, except on
// a few nodes that may be down. Then the replicas of the right shard are removed (janitor).
func (g *merger) settle(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	into, _ := m.Merging(o)
	leader, err := leaderOf(g.reports(ctx, m, into))
	if err == nil {
		err = g.subsume(ctx, m, o, leader.Node)
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
	return g.finish(ctx, stepMerged, o)
}

// orderOf returns what the shards of a MERGE are told about it.
func orderOf(m *placement.Map, o *placement.Operator) *routerpb.Merge {
	into, right := m.Merging(o)
	return &routerpb.Merge{Descriptor_: into.Proto(), Right: right.Proto(), OperatorId: o.ID}
}
