package shard

import "github.com/flotilla-kv/flotilla/shard/shardpb"

// Frozen is the state in which a shard waits for its left neighbour to take its keys: nobody else
// touches them, and nothing of it changes any more unless the merge is abandoned.
type Frozen struct {
	// Descriptor is the shard's own descriptor.
	Descriptor *Descriptor
	// Into is the neighbour's descriptor after the merge, with the keys of both.
	Into *Descriptor
	// Operator is the ID of the MERGE in the placement table.
	Operator uint64
}

// For reports whether a replica is the one that takes the keys on the node: it was a member of the
// neighbour's group, on that node, when the merge began.
func (f *Frozen) For(node NodeID, id ID, replica ReplicaID) bool {
	own, here := f.Into.ReplicaOn(node)
	return f.Into.ID == id && here && own.ID == replica
}

// FrozenBy reports whether the operator has frozen the shard.
func (v View) FrozenBy(operator uint64) bool { return v.Frozen != nil && v.Frozen.Operator == operator }

// Proto converts it to its stored form.
func (f *Frozen) Proto() *shardpb.Frozen {
	return &shardpb.Frozen{Descriptor_: f.Descriptor.Proto(), Into: f.Into.Proto(), OperatorId: f.Operator}
}

// FrozenOf converts it from its stored form. It copies everything.
func FrozenOf(p *shardpb.Frozen) *Frozen {
	return &Frozen{Descriptor: DescriptorOf(p.GetDescriptor_()), Into: DescriptorOf(p.GetInto()), Operator: p.GetOperatorId()}
}
