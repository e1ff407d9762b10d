package placement

import (
	"errors"
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// updateShard replaces the replicas and the preferred node of a shard, or of the meta group, if nobody else has
// changed it meanwhile. It cannot change which keys a shard owns: that takes an agreement between the shards
// involved.
func (m *Map) updateShard(c *placementpb.UpdateShard) (*Map, *placementpb.Result) {
	wanted, err := descriptorOf(c.Descriptor_)
	if err != nil {
		return m, invalid("update a shard: %v", err)
	}
	old := m.Shard(wanted.ID)
	if old == nil {
		return m, refuse(placementpb.Code_NOT_FOUND, "update shard %s: there is no such shard", wanted.ID)
	}
	wanted.Generation = c.ExpectedGeneration + 1
	wanted.NextReplicaID = nextReplicaID(wanted.Replicas, old.NextReplicaID)
	wanted.Parent = old.Parent
	if sameDescriptor(old, wanted) { // a retry of the change that was made last
		return m, shardResult(old, ok())
	}
	if c.ExpectedGeneration != old.Generation {
		return m, shardResult(old, refuse(placementpb.Code_CONFLICT,
			"update shard %s: it was changed meanwhile, its generation is %d and not %d; read the map and decide again", old.ID, old.Generation, c.ExpectedGeneration))
	}
	if err := m.mayUpdate(old.ID, c.OperatorId); err != nil {
		return m, shardResult(old, refuse(placementpb.Code_FAILED_PRECONDITION, "update shard %s: %v", old.ID, err))
	}
	if !wanted.Span.Equal(old.Span) || wanted.Epoch != old.Epoch || wanted.Slot != old.Slot {
		return m, shardResult(old, invalid("update shard %s: it owns %s at epoch %d with slot %d; this command changes none of them",
			old.ID, old.Span, old.Epoch, old.Slot))
	}
	if err := m.checkSuccessor(old, wanted); err != nil {
		return m, shardResult(old, refuse(placementpb.Code_FAILED_PRECONDITION, "update shard %s: %v", old.ID, err))
	}
	next := m.edit()
	if changed := (entry{desc: wanted, version: next.version}); wanted.ID == shard.MetaID {
		next.meta = changed
	} else {
		next.putShards([]entry{changed})
	}
	return next, shardResult(wanted, ok())
}

func shardResult(d *shard.Descriptor, r *placementpb.Result) *placementpb.Result {
	r.Generation = d.Generation
	return r
}

// checkSuccessor refuses changes that a Raft group could not make or should not be asked to make.
func (m *Map) checkSuccessor(old, wanted *shard.Descriptor) error {
	if err := m.checkReplicas(wanted); err != nil {
		return err
	}
	for _, r := range wanted.Replicas {
		was := slices.IndexFunc(old.Replicas, func(o shard.Replica) bool { return o.ID == r.ID })
		if was < 0 {
			if r.ID < old.NextReplicaID {
				return fmt.Errorf("replica ID %d was used before; the next free one is %d", r.ID, old.NextReplicaID)
			}
			if r.ID-old.NextReplicaID >= replicaIDGapMax { // so that IDs never run out
				return fmt.Errorf("replica ID %d leaves a large gap; the next free one is %d", r.ID, old.NextReplicaID)
			}
			if n := m.Node(r.Node); n.State != Active {
				return fmt.Errorf("node %q is %s and takes no new replica", n.Name, n.State)
			}
			continue
		}
		if old.Replicas[was].Node != r.Node {
			return fmt.Errorf("replica %d is on node %s and cannot be taken to node %s; add a replica there, then remove this one",
				r.ID, old.Replicas[was].Node, r.Node)
		}
		if r.Learner && !old.Replicas[was].Learner {
			return fmt.Errorf("replica %d votes and cannot become a learner; remove it and add a learner", r.ID)
		}
	}
	return nil
}

// checkReplicas checks P4, and P2 within the shard.
func (m *Map) checkReplicas(d *shard.Descriptor) error {
	voters, preferredVotes := 0, d.PreferredNode == 0
	for i, r := range d.Replicas {
		if r.ID == 0 || r.ID >= d.NextReplicaID {
			return fmt.Errorf("replica ID %d is not below the next one, %d", r.ID, d.NextReplicaID)
		}
		for _, other := range d.Replicas[:i] {
			if other.ID == r.ID {
				return fmt.Errorf("replica ID %d is there twice", r.ID)
			}
			if other.Node == r.Node {
				return fmt.Errorf("node %s has two replicas, %d and %d", r.Node, other.ID, r.ID)
			}
		}
		if n := m.Node(r.Node); n == nil || n.State == Removed {
			return fmt.Errorf("replica %d is on node %s, which is not part of the cluster", r.ID, r.Node)
		}
		if !r.Learner {
			voters++
			preferredVotes = preferredVotes || r.Node == d.PreferredNode
		}
	}
	if voters == 0 {
		return errors.New("no replica votes")
	}
	if !preferredVotes {
		return fmt.Errorf("the preferred node %s holds no voting replica; prefer one that does, or 0 for any", d.PreferredNode)
	}
	return nil
}

// replicaIDGapMax lets a caller skip IDs that may have been used.
const replicaIDGapMax = 1 << 16

// sameDescriptor compares all fields; the order of replicas counts.
func sameDescriptor(a, b *shard.Descriptor) bool {
	return a.ID == b.ID && a.Span.Equal(b.Span) && a.Epoch == b.Epoch && a.Slot == b.Slot && a.Generation == b.Generation &&
		a.NextReplicaID == b.NextReplicaID && a.PreferredNode == b.PreferredNode && slices.Equal(a.Replicas, b.Replicas)
}
