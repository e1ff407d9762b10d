package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// mover carries out MOVEs: a replica to one node, then the one on another away. The
// descriptor in the table says how far it is:
//
//	PREPARED  no replica on To ─> learner in the table ─> learner in the group ─> caught up
//	STARTED   learner ─> votes in the group ─> votes in the table
//	          ─> From is not preferred, does not lead ─> not in the group ─> not in the table
type mover struct{ *controller }

// MoveSteps are the steps of a MOVE from a node to another, as Knobs.Operator gets them.
func MoveSteps() []string {
	return []string{
		stepAdopt, stepAdmit, stepCatchUp, stepStart, stepPromote, stepPublish,
		stepPrefer, stepYield, stepDismiss, stepDrop, stepFinish,
	}
}

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
	stepDrop    = "the table drops the replica"
	stepFinish  = "the move is finished"
)

// run implements runner.
func (v *mover) run(ctx context.Context, o *placement.Operator) error {
	for {
		m, now, err := v.look(ctx, o)
		if err != nil || now == nil {
			return err
		}
		if err := v.next(ctx, m, now); err != nil {
			return err
		}
	}
}

// next takes the operator one change of the table further.
func (v *mover) next(ctx context.Context, m *placement.Map, o *placement.Operator) error {
	d := m.Shard(o.Shard)
	to, added := d.ReplicaOn(o.To)
	from, stays := d.ReplicaOn(o.From)
	switch started := o.Phase == placementpb.Phase_STARTED; {
	case o.To != 0 && !added:
		return v.adopt(ctx, m, o, d)
	case !started && to.Learner:
		return v.admit(ctx, m, o, d, to)
	case !started:
		return v.begin(ctx, o)
	case to.Learner:
		return v.promote(ctx, m, o, d, to)
	case stays && d.PreferredNode == o.From:
		return v.prefer(ctx, o, d)
	case stays:
		return v.leave(ctx, m, o, d, from)
	}
	if err := v.step(ctx, stepFinish); err != nil {
		return err
	}
	return v.finish(ctx, o)
}

// adopt puts the learner into the table, which settles its ID; its node starts it.
func (v *mover) adopt(ctx context.Context, m *placement.Map, o *placement.Operator, d *shard.Descriptor) error {
	if _, err := leaderOf(v.reports(ctx, m, d)); err != nil { // O5
		return err
	}
	next := *d
	next.Replicas = append(slices.Clip(d.Replicas), shard.Replica{ID: d.NextReplicaID, Node: o.To, Learner: true})
	return v.update(ctx, stepAdopt, o, d, &next)
}

// admit has the group send the learner everything, and waits until it has it.
func (v *mover) admit(ctx context.Context, m *placement.Map, o *placement.Operator, d *shard.Descriptor, to shard.Replica) error {
	target := m.Node(to.Node)
	if target.State == placement.Removed {
		return fmt.Errorf("node %q was removed; cancel the operator", target.Name)
	}
	if err := v.step(ctx, stepAdmit); err != nil {
		return err
	}
	member := &routerpb.Member{Replica: uint64(to.ID), PeerAddr: target.PeerAddr}
	if err := v.orderLeader(ctx, m, d, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_AddLearner{AddLearner: member}}); err != nil {
		return err
	}
	if err := v.step(ctx, stepCatchUp); err != nil {
		return err
	}
	for {
		err := v.order(ctx, m, to.Node, &routerpb.DirectRequest{Shard: uint64(d.ID), Order: &routerpb.DirectRequest_CatchUp{CatchUp: member}})
		if err == nil {
			return v.begin(ctx, o) // O2
		}
		if _, now, lost := v.look(ctx, o); lost != nil || now == nil {
			return errors.Join(err, lost)
		}
		if err := rest(ctx); err != nil {
			return err
		}
	}
}

// begin is where there is no way back (O3).
func (v *mover) begin(ctx context.Context, o *placement.Operator) error {
	if err := v.step(ctx, stepStart); err != nil {
		return err
	}
	return v.advance(ctx, o, placementpb.Phase_STARTED)
}

func (v *mover) promote(ctx context.Context, m *placement.Map, o *placement.Operator, d *shard.Descriptor, to shard.Replica) error {
	if err := v.step(ctx, stepPromote); err != nil {
		return err
	}
	member := &routerpb.Member{Replica: uint64(to.ID), PeerAddr: m.Node(to.Node).PeerAddr}
	if err := v.orderLeader(ctx, m, d, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_Promote{Promote: member}}); err != nil {
		return err
	}
	next := *d
	next.Replicas = slices.Clone(d.Replicas)
	for i := range next.Replicas {
		next.Replicas[i].Learner = next.Replicas[i].Learner && next.Replicas[i].ID != to.ID
	}
	return v.update(ctx, stepPublish, o, d, &next)
}

// prefer keeps the leadership from being given back to the replica that leaves.
func (v *mover) prefer(ctx context.Context, o *placement.Operator, d *shard.Descriptor) error {
	next := *d
	next.PreferredNode = o.To
	return v.update(ctx, stepPrefer, o, d, &next)
}

// leave takes the replica out of the group, then out of the table.
func (v *mover) leave(ctx context.Context, m *placement.Map, o *placement.Operator, d *shard.Descriptor, from shard.Replica) error {
	if err := v.step(ctx, stepYield); err != nil {
		return err
	}
	if err := v.yield(ctx, m, d, from); err != nil {
		return err
	}
	if err := v.step(ctx, stepDismiss); err != nil {
		return err
	}
	member := &routerpb.Member{Replica: uint64(from.ID)}
	if err := v.orderLeader(ctx, m, d, &routerpb.DirectRequest{Order: &routerpb.DirectRequest_Remove{Remove: member}}); err != nil {
		return err
	}
	next := *d
	next.Replicas = slices.DeleteFunc(slices.Clone(d.Replicas), func(r shard.Replica) bool { return r.ID == from.ID })
	return v.update(ctx, stepDrop, o, d, &next)
}

// yield returns when another replica than the one that leaves leads, and those that stay
// can go on without it (O4).
func (v *mover) yield(ctx context.Context, m *placement.Map, d *shard.Descriptor, from shard.Replica) error {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	for {
		reports := v.reports(ctx, m, d)
		leader, err := leaderOf(reports)
		if err != nil {
			return err
		}
		heirs, following, voters := followers(reports, d, leader, from)
		if following <= voters/2 {
			return fmt.Errorf("of the %d replicas that would stay %d answer and follow the leader: %w", voters, following, shard.ErrUnavailable)
		}
		if leader.ID != from.ID {
			return nil
		}
		if len(heirs) == 0 {
			return fmt.Errorf("none of the replicas that would stay is fit to lead: %w", shard.ErrUnavailable)
		}
		// Refused while one is under way, and ended by an election timeout.
		_ = v.order(ctx, m, leader.Node, &routerpb.DirectRequest{Shard: uint64(d.ID), Order: &routerpb.DirectRequest_Transfer{
			Transfer: &routerpb.Member{Replica: uint64(heirs[0].ID)},
		}})
		if err := rest(ctx); err != nil {
			return err
		}
	}
}

// followers counts the voters but for the one that leaves, and those of them that know the
// leader. heirs are those that are fit to lead, those on the preferred node first.
func followers(reports []report, d *shard.Descriptor, leader, from shard.Replica) (heirs []shard.Replica, following, voters int) {
	for _, r := range d.Replicas {
		if !r.Learner && r.ID != from.ID {
			voters++
		}
	}
	for _, r := range reports {
		if r.member.Learner || r.member.ID == from.ID || r.Leader != uint64(leader.ID) {
			continue
		}
		following++
		switch {
		case r.Unfit != "":
		case r.member.Node == d.PreferredNode:
			heirs = slices.Insert(heirs, 0, r.member)
		default:
			heirs = append(heirs, r.member)
		}
	}
	return heirs, following, voters
}

// update replaces the shard's descriptor if it still is the one that was decided on.
func (v *mover) update(ctx context.Context, step string, o *placement.Operator, old, next *shard.Descriptor) error {
	if err := v.step(ctx, step); err != nil {
		return err
	}
	_, err := v.node.meta.propose(ctx, &placementpb.Command{Body: &placementpb.Command_UpdateShard{UpdateShard: &placementpb.UpdateShard{
		ExpectedGeneration: old.Generation, Descriptor_: next.Proto(), OperatorId: o.ID,
	}}})
	return err
}
