package placement

import (
	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// BeginMove is the command that starts to move a replica of a shard, if the shard is still as
// given. Either node may be 0: then a replica is only added, or only removed.
func BeginMove(d *shard.Descriptor, from, to shard.NodeID, why string) *placementpb.Command {
	return begin(d, &placementpb.Operator{Kind: placementpb.OperatorKind_MOVE, FromNodeId: uint64(from), ToNodeId: uint64(to), Why: why})
}

// BeginSplit is the command that starts to split a shard at a key, if the shard is still as given.
func BeginSplit(d *shard.Descriptor, key []byte, why string) *placementpb.Command {
	return begin(d, &placementpb.Operator{Kind: placementpb.OperatorKind_SPLIT, Key: key, Why: why})
}

func begin(d *shard.Descriptor, o *placementpb.Operator) *placementpb.Command {
	o.ShardId = uint64(d.ID)
	return &placementpb.Command{Body: &placementpb.Command_BeginOperator{
		BeginOperator: &placementpb.BeginOperator{ExpectedGeneration: d.Generation, Operator: o},
	}}
}

// BeginMerge is the command that starts to merge a shard with its right neighbour, decided on these
// descriptors.
func BeginMerge(d, right *shard.Descriptor, why string) *placementpb.Command {
	c := begin(d, &placementpb.Operator{Kind: placementpb.OperatorKind_MERGE, WithShardId: uint64(right.ID), Why: why})
	c.GetBeginOperator().ExpectedWithGeneration = right.Generation
	return c
}

// CancelOf is the command that ends an operator.
func CancelOf(id shard.ID, operator uint64) *placementpb.Command {
	return &placementpb.Command{Body: &placementpb.Command_CancelOperator{
		CancelOperator: &placementpb.CancelOperator{ShardId: uint64(id), OperatorId: operator},
	}}
}

// Prefer is the command that sets which node should lead a shard, if the shard is still as given.
func Prefer(d *shard.Descriptor, to shard.NodeID) *placementpb.Command {
	next := *d
	next.PreferredNode = to
	return &placementpb.Command{Body: &placementpb.Command_UpdateShard{
		UpdateShard: &placementpb.UpdateShard{ExpectedGeneration: d.Generation, Descriptor_: next.Proto()},
	}}
}

// SetState is the command that sets what may be placed on a node.
func SetState(id shard.NodeID, state NodeState) *placementpb.Command {
	return &placementpb.Command{Body: &placementpb.Command_UpdateNode{
		UpdateNode: &placementpb.UpdateNode{NodeId: uint64(id), State: placementpb.NodeState(state)},
	}}
}

// Remove is the command that permanently removes a node that holds nothing.
func Remove(id shard.NodeID) *placementpb.Command {
	return &placementpb.Command{Body: &placementpb.Command_RemoveNode{RemoveNode: &placementpb.RemoveNode{NodeId: uint64(id)}}}
}

// Set is the command that changes a setting; an empty value removes it.
func Set(name, value string) *placementpb.Command {
	return &placementpb.Command{Body: &placementpb.Command_SetSetting{SetSetting: &placementpb.SetSetting{Name: name, Value: value}}}
}

// Check returns why the command would be refused on this map; nil when it would not be.
func (m *Map) Check(c *placementpb.Command) error {
	_, result := m.apply(c)
	return ResultError(result)
}
