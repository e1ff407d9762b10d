package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// splitter carries out SPLITs (docs/decisions/0011-splits.md):
//
//	PREPARED   the child's replicas start, empty, where the parent's are; one leads
//	STARTED    all are still well
//	COMMITTED  the parent's leader gives the keys away, its nodes have left their seeds,
//	           the child's leader writes INIT
//	SEEDED     the seeds are durable; the logs of both are truncated past the split; the
//	           table gets both shards
//
// From the parent's split to the child's INIT nobody serves the keys. The node of the parent's leader drives that
// part (divide.go).
type splitter struct{ *controller }

// The steps of a SPLIT, as Knobs.Operator gets them.
const (
	stepGrow   = "the child's replicas are started"
	stepCommit = "the split is committed"
	stepDivide = "the parent gives the keys away"
	stepLeave  = "the seeds are left"
	stepBegin  = "the child begins"
	stepSeeded = "the table hears that the child serves"
	stepSecure = "the seeds are made durable"
	stepWean   = "the logs are cut behind the split"
	stepSettle = "the split is finished"
)

// securePatience is how long to wait for all seeds to become durable, while the syncs yield to requests. After that a
// majority is enough; without one, the wait starts again.
const securePatience = 2 * time.Second

// togetherPatience is how long the child may take to get its leader on the node where the parent's is.
const togetherPatience = time.Second

// next implements runner.
func (s *splitter) next(ctx context.Context, m *placement.Map, o *placement.Operator, soFar time.Duration) error {
	switch o.Phase {
	case placementpb.Phase_PREPARED:
		return s.advanceUnless(ctx, s.obstacle(ctx, m, o, soFar), soFar, stepGrow, o, placementpb.Phase_STARTED)
	case placementpb.Phase_STARTED:
		return s.advanceUnless(ctx, s.obstacle(ctx, m, o, soFar), soFar, stepCommit, o, placementpb.Phase_COMMITTED)
	case placementpb.Phase_COMMITTED:
		return s.divide(ctx, m, o)
	default:
		return s.settle(ctx, m, o)
	}
}

// obstacle returns what prevents a split from continuing. For a while this includes that different nodes lead the two
// shards: with one leader node, no message has to travel between them.
func (s *splitter) obstacle(ctx context.Context, m *placement.Map, o *placement.Operator, soFar time.Duration) error {
	parent := m.Shard(o.Shard)
	leader, err := abreast(parent, s.reports(ctx, m, parent))
	if err != nil {
		return err
	}
	childLeader, err := well(o.Child, s.reports(ctx, m, o.Child))
	if err != nil || childLeader.Node == leader.Node || soFar >= togetherPatience {
		return err
	}
	heir, _ := o.Child.ReplicaOn(leader.Node)
	err = s.orderTransfer(ctx, m, o.Child.ID, childLeader.Node, heir.ID)
	return errors.Join(fmt.Errorf("shard %s is led elsewhere than shard %s", o.Child.ID, parent.ID), err)
}

// divide makes the parent's leader do the part that cannot be undone. Whatever was done before is skipped.
func (s *splitter) divide(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	parent := m.Shard(o.Shard)
	err := s.orderLeader(ctx, m, parent, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_Split{
		Split: &routerpb.Split{Descriptor_: o.Rest(parent).Proto(), Child: o.Child.Proto()},
	}})
	if err != nil {
		s.node.log.Info("a split goes on", "operator", o.ID, "shard", o.Shard, "error", err)
		return rest(ctx)
	}
	return s.advance(ctx, stepSeeded, o, placementpb.Phase_SEEDED)
}

// settle ends the operator once the seeds are durable and the logs are truncated past the split, except on a few
// nodes that may be down. A replica that joins one of the shards later is sent its data.
func (s *splitter) settle(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	if err := s.step(ctx, stepSecure); err != nil {
		return err
	}
	secured := s.orderAll(ctx, m, o.Child, securePatience, &routerpb.DirectRequest{
		Shard: uint64(o.Shard), Order: &routerpb.DirectRequest_SecureSeed{SecureSeed: o.Child.Proto()},
	})
	if err := secured.majority(); err != nil { // only the logs could restore the seeds (P14 of package replica)
		return err
	}
	if err := s.step(ctx, stepWean); err != nil {
		return err
	}
	if err := s.weanBoth(ctx, m, o.Rest(m.Shard(o.Shard)), o.Child); err != nil {
		return err
	}
	return s.finish(ctx, stepSettle, o)
}

// weanBoth truncates the logs of both shards at the same time: a node that is down is waited for once, not twice. The
// split locks both until then.
func (s *splitter) weanBoth(ctx context.Context, m *placement.Map, rest, child *shard.Descriptor) error {
	var ofRest, ofChild error
	var weaning sync.WaitGroup
	weaning.Go(func() { ofRest = s.wean(ctx, m, rest) })
	weaning.Go(func() { ofChild = s.wean(ctx, m, child) })
	weaning.Wait()
	return errors.Join(ofRest, ofChild)
}
