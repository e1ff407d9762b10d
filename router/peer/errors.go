package peer

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// plain are the errors that are transmitted as a code alone, in the order in which they are tested.
func plain() []struct {
	code routerpb.Code
	err  error
} {
	return []struct {
		code routerpb.Code
		err  error
	}{
		{routerpb.Code_UNKNOWN_OUTCOME, shard.ErrUnknownOutcome},
		{routerpb.Code_CLOCK_UNTRUSTED, shard.ErrClockUntrusted},
		{routerpb.Code_STOPPED, shard.ErrStopped},
		{routerpb.Code_OVERLOADED, shard.ErrOverloaded},
		{routerpb.Code_UNAVAILABLE, shard.ErrUnavailable},
		{routerpb.Code_COMPACTED, shard.ErrCompacted},
		{routerpb.Code_FUTURE_REVISION, shard.ErrFutureRevision},
		{routerpb.Code_KEY_NOT_FOUND, shard.ErrKeyNotFound},
		{routerpb.Code_LEASE_NOT_FOUND, shard.ErrLeaseNotFound},
		{routerpb.Code_LEASE_EXISTS, shard.ErrLeaseExists},
		{routerpb.Code_LEASE_RACE, shard.ErrLeaseRace},
		{routerpb.Code_NO_SPACE, shard.ErrNoSpace},
		{routerpb.Code_CORRUPT, shard.ErrCorrupt},
		{routerpb.Code_LARGE_ANSWER, shard.ErrLargeAnswer},
	}
}

// encodeError puts err into the reply.
func encodeError(reply *routerpb.Reply, err error) {
	reply.Message = err.Error()
	var wrongShard *shard.WrongShardError
	var notLeader *shard.NotLeaderError
	var noReplica *shard.NoReplicaError
	var notClosed *shard.NotClosedError
	var unregistered *shard.UnregisteredLeaseError
	var compacted *shard.CompactedError
	switch {
	case errors.Is(err, shard.ErrUnknownOutcome):
		// This comes first: the cause of an unknown outcome is often an error that would be certain
		// by itself.
		reply.Code = routerpb.Code_UNKNOWN_OUTCOME
		return
	case errors.As(err, &wrongShard):
		reply.Code, reply.Shard = routerpb.Code_WRONG_SHARD, uint64(wrongShard.Shard)
		for _, d := range wrongShard.Descriptors {
			reply.Descriptors = append(reply.Descriptors, d.Proto())
		}
		return
	case errors.As(err, &notLeader):
		reply.Code, reply.Shard, reply.Leader = routerpb.Code_NOT_LEADER, uint64(notLeader.Shard), uint64(notLeader.Leader)
		return
	case errors.As(err, &noReplica):
		reply.Code, reply.Shard = routerpb.Code_NO_REPLICA, uint64(noReplica.Shard)
		return
	case errors.As(err, &notClosed):
		reply.Code, reply.Shard, reply.Floor = routerpb.Code_NOT_CLOSED, uint64(notClosed.Shard), int64(notClosed.Floor)
		return
	case errors.As(err, &unregistered):
		reply.Code, reply.Shard = routerpb.Code_UNREGISTERED_LEASE, uint64(unregistered.Shard)
		reply.Lease, reply.Fence = unregistered.Lease, unregistered.Fence
		return
	case errors.As(err, &compacted):
		reply.Code, reply.Compacted = routerpb.Code_COMPACTED, int64(compacted.Compacted)
		return
	}
	for _, p := range plain() {
		if errors.Is(err, p.err) {
			reply.Code = p.code
			return
		}
	}
	var coded interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &coded):
		st := coded.GRPCStatus()
		reply.Code, reply.Status, reply.Message = routerpb.Code_STATUS, uint32(st.Code()), st.Message()
	case errors.Is(err, context.DeadlineExceeded):
		reply.Code = routerpb.Code_UNAVAILABLE
	default:
		reply.Code = routerpb.Code_OTHER
	}
}

// remoteError is an error of package shard with the text of the node where it occurred.
type remoteError struct {
	message string
	kind    error
}

func (e *remoteError) Error() string { return e.message }
func (e *remoteError) Unwrap() error { return e.kind }

// decodeError returns the reply's error, nil for OK.
func decodeError(reply *routerpb.Reply) error {
	switch reply.Code {
	case routerpb.Code_OK:
		return nil
	case routerpb.Code_WRONG_SHARD:
		e := &shard.WrongShardError{Shard: shard.ID(reply.Shard)}
		for _, d := range reply.Descriptors {
			e.Descriptors = append(e.Descriptors, shard.DescriptorOf(d))
		}
		return e
	case routerpb.Code_NOT_LEADER:
		return &shard.NotLeaderError{Shard: shard.ID(reply.Shard), Leader: shard.NodeID(reply.Leader)}
	case routerpb.Code_NO_REPLICA:
		return &shard.NoReplicaError{Shard: shard.ID(reply.Shard)}
	case routerpb.Code_STATUS:
		return status.Error(codes.Code(reply.Status), reply.Message)
	case routerpb.Code_NOT_CLOSED:
		return &shard.NotClosedError{Shard: shard.ID(reply.Shard), Floor: shard.Revision(reply.Floor)}
	case routerpb.Code_UNREGISTERED_LEASE:
		return &shard.UnregisteredLeaseError{Shard: shard.ID(reply.Shard), Lease: reply.Lease, Fence: reply.Fence}
	case routerpb.Code_COMPACTED:
		if reply.Compacted > 0 {
			return &shard.CompactedError{Compacted: shard.Revision(reply.Compacted)}
		}
	}
	for _, p := range plain() {
		if p.code == reply.Code {
			return &remoteError{message: reply.Message, kind: p.err}
		}
	}
	return errors.New(reply.Message)
}
