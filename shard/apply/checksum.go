package apply

import (
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/mvcc"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// ChecksumFormat is the version of what is summed up and how. It rises when ReplicaState
// gets a field, too: replicas are compared only by nodes that sum up the same.
const ChecksumFormat = 1

// sumUp answers a CHECKSUM. It changes nothing: replicas of versions that do not know it,
// or not this format, go on alike.
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

// AddState takes what a replica keeps besides versions into its sum: where it is in the log,
// what it owns, its revisions, its leases. All of it comes from the log, so it is the same
// on all replicas that have applied the same.
func AddState(sum *mvcc.Checksum, v shard.View, leases *shardpb.LeaseState) error {
	data, err := MarshalSnapshot(v, leases)
	if err != nil {
		return err
	}
	sum.Add(data)
	return nil
}
