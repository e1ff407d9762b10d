package apply

import (
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// ChecksumFormat is the version of what the checksum covers and how. It also rises when
// ReplicaState gets a field: replicas are compared only by nodes that compute the same checksum.
const ChecksumFormat = 1

// sumUp answers a CHECKSUM. It changes nothing, so replicas of versions that do not know the
// command or its format continue in the same state.
func (r *run) sumUp(cmd *shardpb.Command) (proto.Message, error) {
	var req shardpb.ChecksumCommand
	if err := req.UnmarshalVT(cmd.Body); err != nil {
		return nil, malformed("body of %s: %v", cmd.Kind, err)
	}
	if req.Format != ChecksumFormat {
		return nil, malformed("checksum of format %d", req.Format)
	}
	r.checksum = true
	return &shardpb.ChecksumAnswer{Index: r.index}, nil
}

// AddState adds the replica's state besides its versions: position in the log, span, revisions,
// leases. All of it is derived from the log, so it is equal on all replicas that have applied the
// same.
func AddState(sum *mvcc.Checksum, v shard.View, leases *shardpb.LeaseState) error {
	data, err := MarshalSnapshot(v, leases)
	if err != nil {
		return err
	}
	sum.Add(data)
	return nil
}
