package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// mover carries out MOVEs: it adds a replica on one node, and then removes the one on another. The descriptor in the
// table shows how far a MOVE is:
//
//	PREPARED  no replica on To ─> learner in the table ─> learner in the group ─> caught up
//	STARTED   learner ─> votes in the group ─> votes in the table
//	          ─> From is not preferred, does not lead ─> not in the group, as a majority knows ─> not in the table
type mover struct{ *controller }

// The steps of a MOVE, as Knobs.Operator gets them.
const (
	stepAdopt   = "the table gets the learner"
	stepAdmit   = "the group gets the learner"
	stepCatchUp = "the learner catches up"
	stepStart   = "the move is started"
	stepPromote = "the learner gets a vote"
	stepPublish = "the table says that it votes"
	stepPrefer  = "the table prefers another node"
	stepYield   = "another replica leads"
	stepDismiss = "the group dismisses the replica"
	stepSpread  = "the others hear of it"
	stepDrop    = "the table drops the replica"
	stepFinish  = "the move is finished"
)

// next implements runner.
func (v *mover) next(ctx context.Context, m *placement.Map, o *placement.Operator, _ time.Duration) error {
	d := m.Shard(o.Shard)
	switch stageOf(o, d) {
	case moveAdopts:
		return v.adopt(ctx, m, o, d)
	case moveAdmits:
		return v.admit(ctx, m, o, d)
	case moveStarts:
		return v.start(ctx, o)
	case movePromotes:
		return v.promote(ctx, m, o, d)
	case movePrefers:
		return v.prefer(ctx, o, d)
	case moveLeaves:
		return v.leave(ctx, m, o, d)
	default:
		return v.finish(ctx, stepFinish, o)
	}
}

// moveStage is the next thing to do for a MOVE.
type moveStage int

const (
	moveAdopts   moveStage = iota // add the learner to the table
	moveAdmits                    // add it to the group, and wait until it has caught up
	moveStarts                    // start the operator; from then on votes may change
	movePromotes                  // make the learner a voter
	movePrefers                   // make the table prefer another node than From
	moveLeaves                    // remove the replica on From
	moveEnds
)

// stageOf tells it from what the table says. Of a move without To or From the stages that
// are about it are passed over.
func stageOf(o *placement.Operator, d *shard.Descriptor) moveStage {
	to, added := d.ReplicaOn(o.To)
	_, stays := d.ReplicaOn(o.From)
	started := o.Phase >= placementpb.Phase_STARTED
	switch {
	case o.To != 0 && !added:
		return moveAdopts
	case to.Learner && !started:
		return moveAdmits
	case !started: // O3
		return moveStarts
	case to.Learner:
		return movePromotes
	case stays && d.PreferredNode == o.From:
		return movePrefers
	case stays:
		return moveLeaves
	default:
		return moveEnds
	}
}

// adopt puts the learner into the table, which settles its ID; its node starts it.
func (v *mover) adopt(ctx context.Context, m *placement.Map, o *placement.Operator, d *shard.Descriptor) error {
	if _, err := leaderOf(v.reports(ctx, m, d)); err != nil { // O5
		return err
	}
	return v.update(ctx, stepAdopt, o, d, withLearner(d, o.To))
}

// admit has the group send the learner everything, and waits until it has it.
func (v *mover) admit(ctx context.Context, m *placement.Map, o *placement.Operator, d *shard.Descriptor) error {
	target := m.Node(o.To)
	if target.State == placement.Removed {
		return fmt.Errorf("node %q was removed; cancel the operator", target.Name)
	}
	member := memberOn(d, target)
	if err := v.step(ctx, stepAdmit); err != nil {
		return err
	}
	if err := v.orderLeader(ctx, m, d, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_AddLearner{AddLearner: member}}); err != nil {
		return err
	}
	if err := v.step(ctx, stepCatchUp); err != nil {
		return err
	}
	for {
		err := v.order(ctx, m, o.To, &routerpb.DirectRequest{Shard: uint64(d.ID), Order: &routerpb.DirectRequest_CatchUp{CatchUp: member}})
		if err == nil {
			return v.start(ctx, o) // O2
		}
		if _, now, lost := v.look(ctx, o); lost != nil || now == nil {
			return errors.Join(err, lost)
		}
		if err := rest(ctx); err != nil {
			return err
		}
	}
}

// start is the point of no return (O3).
func (v *mover) start(ctx context.Context, o *placement.Operator) error {
	return v.advance(ctx, stepStart, o, placementpb.Phase_STARTED)
}

// promote makes the learner a voter: first in the group, which is what counts.
func (v *mover) promote(ctx context.Context, m *placement.Map, o *placement.Operator, d *shard.Descriptor) error {
	if err := v.step(ctx, stepPromote); err != nil {
		return err
	}
	member := memberOn(d, m.Node(o.To))
	if err := v.orderLeader(ctx, m, d, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_Promote{Promote: member}}); err != nil {
		return err
	}
	return v.update(ctx, stepPublish, o, d, withVoter(d, o.To))
}

// prefer keeps leadership from returning to the replica that leaves.
func (v *mover) prefer(ctx context.Context, o *placement.Operator, d *shard.Descriptor) error {
	return v.update(ctx, stepPrefer, o, d, preferring(d, o.To))
}

// leave removes the replica from the group, and then from the table.
func (v *mover) leave(ctx context.Context, m *placement.Map, o *placement.Operator, d *shard.Descriptor) error {
	from, _ := d.ReplicaOn(o.From)
	if err := v.step(ctx, stepYield); err != nil {
		return err
	}
	if err := v.yield(ctx, m, d, from.ID); err != nil {
		return err
	}
	if err := v.step(ctx, stepDismiss); err != nil {
		return err
	}
	member := &routerpb.Member{Replica: uint64(from.ID)}
	if err := v.orderLeader(ctx, m, d, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_Remove{Remove: member}}); err != nil {
		return err
	}
	if err := v.step(ctx, stepSpread); err != nil {
		return err
	}
	next := without(d, o.From)
	if err := v.spread(ctx, m, next); err != nil {
		return err
	}
	return v.update(ctx, stepDrop, o, d, next)
}

// spread returns when a majority of the replicas that stay has applied the dismissal of the one that leaves (O4).
func (v *mover) spread(ctx context.Context, m *placement.Map, stay *shard.Descriptor) error {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	var know atomic.Int64
	return v.orderEach(ctx, stay, orderTimeout, func(ctx context.Context, at shard.NodeID) error {
		order := &routerpb.DirectRequest{Shard: uint64(stay.ID), Order: &routerpb.DirectRequest_CatchUp{CatchUp: memberOn(stay, m.Node(at))}}
		err := until(ctx, func() error { return v.order(ctx, m, at, order) })
		if err == nil && int(know.Add(1)) > len(stay.Replicas)/2 {
			enough()
		}
		return err
	}).majority()
}

// yield returns when the replica that leaves does not lead, and those that stay can continue without it (O4).
func (v *mover) yield(ctx context.Context, m *placement.Map, d *shard.Descriptor, leaving shard.ReplicaID) error {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	for {
		leader, heir, err := succession(d, v.reports(ctx, m, d), leaving)
		if err != nil || leader.ID != leaving {
			return err
		}
		// It is refused while another transfer is in progress; an election timeout ends that one.
		_ = v.orderTransfer(ctx, m, d.ID, leader.Node, heir.ID)
		if err := rest(ctx); err != nil {
			return err
		}
	}
}

// update replaces the shard's descriptor if it is still the one on which the step was decided.
func (v *mover) update(ctx context.Context, step string, o *placement.Operator, old, next *shard.Descriptor) error {
	if err := v.step(ctx, step); err != nil {
		return err
	}
	_, err := v.node.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{
		ExpectedGeneration: old.Generation, Descriptor_: next.Proto(), OperatorId: o.ID,
	}}})
	return err
}

// memberOn returns a shard's replica on the node, with the address at which the others find it.
func memberOn(d *shard.Descriptor, at *placement.Node) *routerpb.Member {
	r, _ := d.ReplicaOn(at.ID)
	return &routerpb.Member{Replica: uint64(r.ID), PeerAddr: at.PeerAddr}
}

// withLearner returns the descriptor with one more learner.
func withLearner(d *shard.Descriptor, on shard.NodeID) *shard.Descriptor {
	next := *d
	next.Replicas = append(slices.Clip(d.Replicas), shard.Replica{ID: d.NextReplicaID, Node: on, Learner: true})
	return &next
}

// withVoter returns the descriptor with a vote for the replica on the node.
func withVoter(d *shard.Descriptor, on shard.NodeID) *shard.Descriptor {
	next := *d
	next.Replicas = slices.Clone(d.Replicas)
	for i := range next.Replicas {
		next.Replicas[i].Learner = next.Replicas[i].Learner && next.Replicas[i].Node != on
	}
	return &next
}

// preferring returns the descriptor with another preferred node.
func preferring(d *shard.Descriptor, node shard.NodeID) *shard.Descriptor {
	next := *d
	next.PreferredNode = node
	return &next
}

// without returns the descriptor without the replica on the node.
func without(d *shard.Descriptor, on shard.NodeID) *shard.Descriptor {
	next := *d
	next.Replicas = slices.DeleteFunc(slices.Clone(d.Replicas), func(r shard.Replica) bool { return r.Node == on })
	return &next
}
