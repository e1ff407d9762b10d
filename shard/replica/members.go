package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/lni/dragonboat/v4"

	"github.com/flotilla-kv/flotilla/shard"
)

// Members changes the membership of a group through this node's replica of it.
type Members struct {
	nh  *dragonboat.NodeHost
	id  shard.ID
	own shard.ReplicaID
}

// Members returns the members of a group whose replica runs on this node.
func (h *Host) Members(id shard.ID, own shard.ReplicaID) Members { return Members{h.nh, id, own} }

// AddLearner adds the replica, which is to run at the address, as a learner: it receives the
// group's log without a vote. Like Promote and Dismiss it is called on the group's leader, and does
// nothing if that was done already.
func (g Members) AddLearner(ctx context.Context, id shard.ReplicaID, addr string) error {
	return g.change(ctx, "add a learner", id, func(m *dragonboat.Membership) (done bool, err error) {
		_, learns := m.NonVotings[uint64(id)]
		_, votes := m.Nodes[uint64(id)]
		if _, gone := m.Removed[uint64(id)]; gone {
			return false, ErrRemoved
		}
		return learns || votes, nil
	}, func(ctx context.Context, order uint64) error {
		return g.nh.SyncRequestAddNonVoting(ctx, uint64(g.id), uint64(id), addr, order)
	})
}

// Promote gives a learner a vote.
func (g Members) Promote(ctx context.Context, id shard.ReplicaID, addr string) error {
	return g.change(ctx, "promote", id, func(m *dragonboat.Membership) (done bool, err error) {
		_, learns := m.NonVotings[uint64(id)]
		_, votes := m.Nodes[uint64(id)]
		if !learns && !votes {
			return false, errors.New("it is no learner")
		}
		return votes, nil
	}, func(ctx context.Context, order uint64) error {
		return g.nh.SyncRequestAddReplica(ctx, uint64(g.id), uint64(id), addr, order)
	})
}

// Dismiss removes a replica from its group for ever. A leader does not dismiss itself, because it
// could not tell the others what it has committed.
func (g Members) Dismiss(ctx context.Context, id shard.ReplicaID) error {
	if id == g.own {
		return fmt.Errorf("dismiss replica %d of shard %d: it is this node's, which leads", id, g.id)
	}
	return g.change(ctx, "dismiss", id, func(m *dragonboat.Membership) (done bool, err error) {
		_, gone := m.Removed[uint64(id)]
		return gone, nil
	}, func(ctx context.Context, order uint64) error {
		return g.nh.SyncRequestDeleteReplica(ctx, uint64(g.id), uint64(id), order)
	})
}

// change makes one change to the group's members. It names the membership that it was decided on: if another change
// came in between, it is refused, and the membership is looked at again. ctx must have a deadline.
func (g Members) change(ctx context.Context, what string, id shard.ReplicaID, done func(*dragonboat.Membership) (bool, error), request func(ctx context.Context, order uint64) error) error {
	fail := func(err error) error { return fmt.Errorf("%s: shard %d replica %d: %w", what, g.id, id, err) }
	var refused *uint64
	for {
		m, err := g.nh.SyncGetShardMembership(ctx, uint64(g.id))
		if err != nil {
			return fail(fmt.Errorf("read who the members are: %w", err))
		}
		already, err := done(m)
		if err != nil {
			return fail(err)
		}
		if already {
			return nil
		}
		if refused != nil && *refused == m.ConfigChangeID {
			return fail(fmt.Errorf("the group refuses it as it is: voters %v, learners %v", m.Nodes, m.NonVotings))
		}
		err = request(ctx, m.ConfigChangeID)
		if err == nil {
			return nil
		}
		if !errors.Is(err, dragonboat.ErrRejected) {
			return fail(err) // the next call sees whether it was done
		}
		refused = &m.ConfigChangeID
	}
}

// CatchUp implements Heir, for learners too.
func (r *Replica) CatchUp(ctx context.Context) error {
	view, err := r.Barrier(ctx)
	if err != nil {
		return err
	}
	if view.Descriptor == nil {
		return fmt.Errorf("shard %d replica %d has not received the shard yet: %w", r.id, r.replicaID, shard.ErrUnavailable)
	}
	return nil
}
