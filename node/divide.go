package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/replica"
)

// seedPatience is how long the child waits for a missing seed. Then the replicas that have one begin, if they are a
// majority, and a replica without one has to be replaced.
const seedPatience = 2 * time.Second

// divide splits a shard that this node leads, and brings the child into service. In between nobody serves the child's
// keys, so each step follows the previous one at once.
func (n *Node) divide(ctx context.Context, r *replica.Replica, rest, child *shard.Descriptor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := n.control.step(ctx, stepDivide); err != nil {
		return err
	}
	n.control.brace(ctx, n.table.Map(), rest, false)
	left := n.leaveSeeds(ctx, rest, child) // sent before the split, so that the nodes already wait for it
	if err := r.Split(ctx, rest, child); err != nil {
		return err
	}
	pause := n.pauses.begin(placementpb.OperatorKind_SPLIT)
	if err := n.control.step(ctx, stepLeave); err != nil {
		return err
	}
	seeds := <-left
	if err := seeds.majority(); err != nil {
		return err
	}
	pause.pass(partSeeds)
	if err := n.control.step(ctx, stepBegin); err != nil {
		return err
	}
	if err := n.initialise(ctx, child, seeds.done); err != nil {
		return err
	}
	pause.pass(partBegun)
	n.log.With("shard", rest.ID, "child", child.ID, "key", string(child.Span.Start)).Info("a shard was split", pause.end()...)
	return nil
}

// leaveSeeds asks all replicas of the parent to report when they have left the child's seed. Each does so as soon as
// it has applied the split.
func (n *Node) leaveSeeds(ctx context.Context, parent, child *shard.Descriptor) <-chan tally {
	m, done := n.table.Map(), make(chan tally, 1)
	go func() {
		done <- n.control.orderAll(ctx, m, child, seedPatience, &routerpb.DirectRequest{
			Shard: uint64(parent.ID), Order: &routerpb.DirectRequest_LeaveSeed{LeaveSeed: child.Proto()},
		})
	}()
	return done
}

// initialise makes the child's leader, which must have a seed, give the child its descriptor.
func (n *Node) initialise(ctx context.Context, child *shard.Descriptor, seeded []shard.Replica) error {
	m := n.table.Map()
	return until(ctx, func() error {
		leader, _ := n.host.Leader(child.ID)
		switch able := slices.ContainsFunc(seeded, func(r shard.Replica) bool { return r.ID == leader }); {
		case leader == 0:
			return fmt.Errorf("shard %s has no leader: %w", child.ID, shard.ErrUnavailable)
		case !able: // INIT would poison it, and nobody could serve
			err := n.control.orderTransfer(ctx, m, child.ID, child.NodeOf(leader), seeded[0].ID)
			return errors.Join(fmt.Errorf("replica %d of shard %s leads without a seed: %w", leader, child.ID, shard.ErrUnavailable), err)
		}
		return n.control.order(ctx, m, child.NodeOf(leader), &routerpb.DirectRequest{
			Shard: uint64(child.ID), Order: &routerpb.DirectRequest_Initialise{Initialise: child.Proto()},
		})
	})
}
