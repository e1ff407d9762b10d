package apply

import (
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// StateKind is the kind of the engine's local record that holds a replica's state. A snapshot's
// receiver writes the sender's state under its own replica ID.
const StateKind byte = 1

const stateFormat = 1

// MarshalState encodes the state record of a view.
func MarshalState(v shard.View) ([]byte, error) { return marshalState(v, nil) }

// MarshalSnapshot encodes the state that accompanies a snapshot of the data: the record, and the
// shard's lease state besides its versions.
func MarshalSnapshot(v shard.View, leases *shardpb.LeaseState) ([]byte, error) {
	return marshalState(v, leases)
}

func marshalState(v shard.View, leases *shardpb.LeaseState) ([]byte, error) {
	s := shardpb.ReplicaState{
		Format: stateFormat, AppliedIndex: v.Applied,
		Revision: int64(v.Rev), Floor: int64(v.Floor), Compacted: int64(v.Compacted), Leases: leases,
		Poisoned: v.Poisoned, Since: v.Since,
	}
	if v.Descriptor != nil {
		s.Descriptor_ = v.Descriptor.Proto()
	}
	if v.Child != nil {
		s.Child = v.Child.Proto()
	}
	if v.Frozen != nil {
		s.Frozen = v.Frozen.Proto()
	}
	if v.Reserved != nil {
		s.Reserved = v.Reserved.Proto()
	}
	data, err := s.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode state record: %w", err)
	}
	return data, nil
}

// UnmarshalState decodes a state record.
func UnmarshalState(data []byte) (shard.View, error) {
	v, _, err := unmarshalState(data)
	return v, err
}

func unmarshalState(data []byte) (shard.View, *shardpb.LeaseState, error) {
	fail := func(format string, args ...any) (shard.View, *shardpb.LeaseState, error) {
		return shard.View{}, nil, fmt.Errorf("decode state record: "+format, args...)
	}
	var s shardpb.ReplicaState
	if err := s.UnmarshalVT(data); err != nil {
		return fail("%w: %w", shard.ErrCorrupt, err)
	}
	if s.Format != stateFormat {
		return fail("format %d is not known to this version of flotilla", s.Format)
	}
	v := shard.View{
		Applied: s.AppliedIndex, Rev: shard.Revision(s.Revision),
		Floor: shard.Revision(s.Floor), Compacted: shard.Revision(s.Compacted), Poisoned: s.Poisoned, Since: s.Since,
	}
	if s.Descriptor_ != nil {
		v.Descriptor = shard.DescriptorOf(s.Descriptor_)
	}
	if s.Child != nil {
		v.Child = shard.DescriptorOf(s.Child)
	}
	if s.Frozen != nil {
		v.Frozen = shard.FrozenOf(s.Frozen)
	}
	if s.Reserved != nil {
		v.Reserved = shard.ReservationOf(s.Reserved)
	}
	if v.Compacted > v.Rev || v.Rev > v.Floor { // A5
		return fail("compacted %d, revision %d, floor %d out of order: %w", v.Compacted, v.Rev, v.Floor, shard.ErrCorrupt)
	}
	return v, s.Leases, nil
}
