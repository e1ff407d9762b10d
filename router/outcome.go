package router

import (
	"errors"

	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
)

// certain reports whether err promises that nothing was applied, so that the
// request may be sent again (T1).
func certain(err error) bool {
	var wrongShard *shard.WrongShardError
	var notLeader *shard.NotLeaderError
	var noReplica *shard.NoReplicaError
	switch {
	case errors.Is(err, shard.ErrUnknownOutcome):
		return false
	case errors.As(err, &wrongShard), errors.As(err, &notLeader), errors.As(err, &noReplica):
		return true
	case errors.Is(err, shard.ErrUnavailable), errors.Is(err, shard.ErrStopped), errors.Is(err, shard.ErrClockUntrusted),
		errors.Is(err, shard.ErrOverloaded):
		return true
	}
	return false
}

// ambiguous reports whether a write that ended with err may have been applied: err is neither a
// certain failure nor a shard's refusal.
func ambiguous(err error) bool {
	if errors.Is(err, shard.ErrUnknownOutcome) {
		return true
	}
	if certain(err) {
		return false
	}
	for _, refusal := range []error{
		shard.ErrCompacted, shard.ErrFutureRevision, shard.ErrKeyNotFound, shard.ErrNoSpace, shard.ErrCorrupt,
		shard.ErrLeaseNotFound, shard.ErrLeaseExists, shard.ErrLeaseRace,
	} {
		if errors.Is(err, refusal) {
			return false
		}
	}
	var unregistered *shard.UnregisteredLeaseError
	if errors.As(err, &unregistered) {
		return false
	}
	// etcd's own refusals carry their gRPC code. gRPC's errors about a connection never arrive here
	// unwrapped (Sender).
	var coded interface{ GRPCStatus() *status.Status }
	return !errors.As(err, &coded)
}
