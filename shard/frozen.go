package shard

import "github.com/flotilla-kv/flotilla/shard/shardpb"

// Frozen is what a shard leaves for its left neighbour to take: nobody else touches its
// keys, and nothing of it changes any more unless the merge is given up.
type Frozen struct {
	// Descriptor is the shard's own.
	Descriptor *Descriptor
	// Into is the neighbour's as it will be, with the keys of both.
	Into *Descriptor
	// Operator is the MERGE of the placement table.
	Operator uint64
}

// For reports whether a replica is the one that takes the keys on the node: it was in its
// group, and on that node, when the merge began.
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
