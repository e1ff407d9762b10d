package apply_test

import (
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

const testOperator uint64 = 5

// merging is a merge of two shards as the placement table would have it.
type merging struct{ left, right, into *shard.Descriptor }

func merge(left, right *shard.Descriptor) merging {
	into := *left
	into.Span.End = right.Span.End
	into.Epoch = max(left.Epoch, right.Epoch) + 1
	into.Generation++
	into.Replicas = right.Replicas
	return merging{left, right, &into}
}

func (m merging) freeze(operator uint64) *shardpb.Command {
	return &shardpb.Command{Kind: shardpb.Kind_FREEZE, Epoch: m.right.Epoch, Descriptor_: m.into.Proto(), OperatorId: operator}
}

func (m merging) subsume(operator uint64) *shardpb.Command {
	return &shardpb.Command{Kind: shardpb.Kind_SUBSUME, Epoch: m.left.Epoch, Descriptor_: m.into.Proto(), Right: m.right.Proto(), OperatorId: operator}
}

func (s *story) mergeStep(a args) string {
	operator := uint64(a.int("operator", int64(testOperator)))
	var cmd *shardpb.Command
	switch a.Cmd {
	case "merge":
		s.merging = merge(s.descriptorOf(shard.ID(a.int("left", 0))), s.descriptorOf(shard.ID(a.int("right", 0))))
		return ""
	case "freeze":
		cmd = s.merging.freeze(operator)
	case "thaw":
		cmd = &shardpb.Command{Kind: shardpb.Kind_THAW, OperatorId: operator}
	default:
		cmd = s.merging.subsume(operator)
		if a.HasArg("right-end") {
			cmd.Right.End = a.bytes("right-end")
		}
		if a.HasArg("right-start") {
			cmd.Right.Start = a.bytes("right-start")
		}
	}
	if a.HasArg("into-epoch") {
		cmd.Descriptor_.Epoch = uint64(a.int("into-epoch", 0))
	}
	if a.HasArg("into-start") {
		cmd.Descriptor_.Start = a.bytes("into-start")
	}
	if a.HasArg("into-end") {
		cmd.Descriptor_.End = a.bytes("into-end")
	}
	if a.HasArg("into-replica") {
		cmd.Descriptor_.Replicas[0].ReplicaId = uint64(a.int("into-replica", 0))
	}
	if a.HasArg("nothing") {
		cmd.Descriptor_ = nil
	}
	epoch := cmd.Epoch
	cmd.Stamp = a.int("stamp", 0)
	cmd.Epoch = uint64(a.int("epoch", int64(epoch)))
	s.last = s.entry(cmd)
	return results(s.update(s.last))
}

// descriptorOf is what the node's machine of a shard has.
func (s *story) descriptorOf(id shard.ID) *shard.Descriptor {
	was := s.id
	s.turn(id)
	defer s.turn(was)
	return s.machine.View().Descriptor
}
