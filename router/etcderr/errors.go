// Package etcderr translates errors into those of etcd. It is the only place where the errors of packages shard and
// router become gRPC codes and etcd's texts. Nodes use it to answer etcd's clients, and the native client uses it
// where it stands in for one of them.
package etcderr

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// The mapping below is made for what clientv3 3.7 does with an error:
//
//	read (Range, MemberList, …)   tried again on code Unavailable, any text
//	LeaseGrant, LeaseRevoke       as reads: a second lease harms nobody, and a lease that
//	                              was revoked is not found again
//	write (Put, Txn, …)           tried again on Unavailable with one of the texts
//	                              "there is no address available" and
//	                              "there is no connection available"
//	either                        tried again on Canceled and DeadlineExceeded while
//	                              the caller's own context is alive
//
// The last line is why a write is never answered with these two codes (E2 of package
// etcdapi): a server may see the end of a deadline before the client does. The client
// would then send the write again, and it could be applied twice.

// Read converts the error of a request that changes nothing into the error for its client. ctx is the request's.
func Read(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	known := translate(err)
	if errors.Is(err, router.ErrRequestTimeout) && (known == nil || status.Code(known) == codes.Unavailable) {
		// etcd reports a timeout, whatever the last attempt failed for.
		return rpctypes.ErrGRPCTimeout
	}
	if known != nil {
		return known
	}
	if isContextError(err) {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		// The client's own time is not over, so it was a deadline of the server: trying again may help.
		return rpctypes.ErrGRPCTimeout
	}
	return unknown(err)
}

// Write converts the error of a request that may change something into the error for its client.
func Write(err error) error {
	if err == nil {
		return nil
	}
	known := translate(err)
	switch {
	case known == nil && (isContextError(err) || errors.Is(err, router.ErrRequestTimeout)), known != nil && retriedAsWrite(known):
		return rpctypes.ErrGRPCTimeout
	case known == nil:
		return unknown(err)
	default:
		return known
	}
}

// translate returns etcd's error for err, or nil if err is none of the errors that are known here.
func translate(err error) error {
	var (
		wrongShard *shard.WrongShardError
		notLeader  *shard.NotLeaderError
		noReplica  *shard.NoReplicaError
		notClosed  *shard.NotClosedError
		noLease    *shard.UnregisteredLeaseError
		client     rpctypes.EtcdError
		own        interface{ GRPCStatus() *status.Status }
	)
	switch {
	// This comes first: whatever the cause was, the client must learn that the outcome is unknown.
	case errors.Is(err, shard.ErrUnknownOutcome):
		return rpctypes.ErrGRPCTimeout

	// Refusals: the request was understood, and the answer is no.
	case errors.Is(err, shard.ErrCompacted):
		return rpctypes.ErrGRPCCompacted
	case errors.Is(err, shard.ErrFutureRevision):
		return rpctypes.ErrGRPCFutureRev
	case errors.Is(err, shard.ErrKeyNotFound):
		return rpctypes.ErrGRPCKeyNotFound
	case errors.Is(err, shard.ErrLeaseNotFound):
		return rpctypes.ErrGRPCLeaseNotFound
	case errors.Is(err, shard.ErrLeaseExists):
		return rpctypes.ErrGRPCLeaseExist
	case errors.Is(err, shard.ErrNoSpace):
		return rpctypes.ErrGRPCNoSpace
	case errors.Is(err, shard.ErrCorrupt):
		return rpctypes.ErrGRPCCorrupt

	// Failures to get an answer.
	case errors.Is(err, shard.ErrOverloaded):
		return rpctypes.ErrGRPCRequestTooManyRequests
	case errors.Is(err, shard.ErrClockUntrusted):
		return rpctypes.ErrGRPCUnhealthy
	case errors.Is(err, shard.ErrStopped):
		return rpctypes.ErrGRPCStopped

	// Reads of one key, lists and streams do not fail for this: a transaction that reads does, and the keys of a lease.
	case errors.Is(err, shard.ErrLargeAnswer):
		return status.Error(codes.ResourceExhausted, "flotilla: the answer is larger than what nodes send each other; read less at once")

	// The router retries after these. They get here only once its time is over.
	case errors.As(err, &notLeader), errors.As(err, &wrongShard), errors.As(err, &noLease), errors.Is(err, shard.ErrLeaseRace):
		return rpctypes.ErrGRPCLeaderChanged
	case errors.As(err, &noReplica), errors.Is(err, shard.ErrUnavailable):
		return rpctypes.ErrGRPCNoLeader
	case errors.As(err, &notClosed):
		return rpctypes.ErrGRPCTimeoutWaitAppliedIndex

	// Errors that carry their code, such as those of package txn. They are unwrapped, because
	// text that was added around them would change etcd's exact text (E3 of package etcdapi).
	case errors.As(err, &client):
		return status.Error(client.Code(), client.Error())
	case errors.As(err, &own):
		return own.GRPCStatus().Err()
	}
	return nil
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// retriedAsWrite reports whether clientv3 would send a write again on this answer.
func retriedAsWrite(err error) bool {
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded:
		return true
	case codes.Unavailable:
		return s.Message() == "there is no address available" || s.Message() == "there is no connection available"
	default:
		return false
	}
}

// unknown returns the answer for an error that is not known here. Clients never retry after it.
func unknown(err error) error { return status.Error(codes.Unknown, err.Error()) }
