package client

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
)

// Errors that operations end with; errors.Is finds them. What etcd refuses by itself (an
// empty key, a request that is too large) is etcd's own error of package rpctypes, and a
// transaction over several shards is refused with *txn.CrossShardError. In all of these
// cases nothing was applied.
var (
	ErrCompacted      = shard.ErrCompacted
	ErrFutureRevision = shard.ErrFutureRevision
	ErrLeaseNotFound  = shard.ErrLeaseNotFound
	ErrNoSpace        = shard.ErrNoSpace
	// ErrUnavailable: the shard could not be reached, or had no leader, for as long as there
	// was time.
	ErrUnavailable = shard.ErrUnavailable
	// ErrOverloaded: too much is waiting to be sent, or to be carried out.
	ErrOverloaded = shard.ErrOverloaded
	// ErrClosed: the client is closed.
	ErrClosed error = closedError{}
)

// closedError has a code of its own, so that the router takes it for a refusal.
type closedError struct{}

func (closedError) Error() string              { return "the client is closed" }
func (closedError) GRPCStatus() *status.Status { return status.New(codes.Canceled, "client is closed") }

// UnknownOutcomeError says that an operation may have been applied, or may still be: it was
// sent, and no answer came. Whoever gets it looks at the key before doing it again.
type UnknownOutcomeError struct {
	// Op is what the operation was, "put" for example.
	Op string
	// Key is its first key.
	Key string
	// Err is why there is no answer. It wraps a context's error if that ended first.
	Err error
}

func (e *UnknownOutcomeError) Error() string { return fmt.Sprintf("%s %.64q: %v", e.Op, e.Key, e.Err) }

// Unwrap makes errors.Is(err, shard.ErrUnknownOutcome) true.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// explain gives an error its type (X1).
func (o *Op) explain(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, shard.ErrUnknownOutcome) {
		return &UnknownOutcomeError{Op: o.kind.String(), Key: o.firstKey(), Err: err}
	}
	return err
}
