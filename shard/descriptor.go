package shard

import (
	"bytes"
	"slices"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Descriptor says what a shard owns and who replicates it. A descriptor is a
// value: it is never changed in place, a newer one has a higher Epoch.
type Descriptor struct {
	ID   ID
	Span Span
	// Epoch rises whenever Span changes. Every command carries the epoch it was
	// routed by, and apply refuses any other: a command routed by an old map can
	// never touch keys that have moved away.
	Epoch uint64
	Slot  Slot
	// Generation rises with every change of the descriptor, Epoch or Replicas.
	Generation uint64
	Replicas   []Replica
	// NextReplicaID is the lowest replica ID not yet used in this shard.
	NextReplicaID ReplicaID
	// PreferredNode is where the leader should be; 0 means anywhere.
	PreferredNode NodeID
	// Parent is the shard from which this one was split off, 0 for a cluster's initial ones. The
	// replicas of a shard with a parent start from the seed that the parent left them.
	Parent ID
}

// Replica is one member of a shard's Raft group.
type Replica struct {
	ID   ReplicaID
	Node NodeID
	// Learner replicas receive the log but do not vote.
	Learner bool
}

// ReplicaOn returns the shard's replica on node, if it has one.
func (d *Descriptor) ReplicaOn(node NodeID) (Replica, bool) {
	i := slices.IndexFunc(d.Replicas, func(r Replica) bool { return r.Node == node })
	if i < 0 {
		return Replica{}, false
	}
	return d.Replicas[i], true
}

// NodeOf returns the node that holds the replica, or 0.
func (d *Descriptor) NodeOf(id ReplicaID) NodeID {
	for _, r := range d.Replicas {
		if r.ID == id {
			return r.Node
		}
	}
	return 0
}

// Proto converts the descriptor to its wire form.
func (d *Descriptor) Proto() *shardpb.Descriptor {
	p := &shardpb.Descriptor{
		ShardId: uint64(d.ID), Start: d.Span.Start, End: d.Span.End, Epoch: d.Epoch,
		Slot: uint32(d.Slot), Generation: d.Generation, NextReplicaId: uint64(d.NextReplicaID),
		PreferredNode: uint64(d.PreferredNode), ParentShardId: uint64(d.Parent),
	}
	for _, r := range d.Replicas {
		p.Replicas = append(p.Replicas, &shardpb.Replica{ReplicaId: uint64(r.ID), NodeId: uint64(r.Node), Learner: r.Learner})
	}
	return p
}

// DescriptorOf converts a descriptor from its wire form. It copies everything.
func DescriptorOf(p *shardpb.Descriptor) *Descriptor {
	d := &Descriptor{
		ID: ID(p.ShardId), Span: Span{Start: bytes.Clone(p.Start), End: bytes.Clone(p.End)},
		Epoch: p.Epoch, Slot: Slot(p.Slot), Generation: p.Generation,
		NextReplicaID: ReplicaID(p.NextReplicaId), PreferredNode: NodeID(p.PreferredNode),
		Parent: ID(p.ParentShardId),
	}
	for _, r := range p.Replicas {
		d.Replicas = append(d.Replicas, Replica{ID: ReplicaID(r.ReplicaId), Node: NodeID(r.NodeId), Learner: r.Learner})
	}
	return d
}
