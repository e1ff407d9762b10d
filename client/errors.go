package client

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
)

// ErrClosed ends operations that Close finds unfinished and not sent, and all later ones. An
// operation that was sent without an answer ends with an *UnknownOutcomeError.
var ErrClosed = errors.New("the client is closed")

// ErrSessionOver ends everything that waits for a session whose lease may have expired.
var ErrSessionOver = errors.New("the session is over")

// closedError has a gRPC code, so that the router takes it for a refusal and does not retry.
type closedError struct{}

func (closedError) Error() string              { return ErrClosed.Error() }
func (closedError) Unwrap() error              { return ErrClosed }
func (closedError) GRPCStatus() *status.Status { return status.New(codes.Canceled, ErrClosed.Error()) }

// UnknownOutcomeError says that an operation may have been applied, or may still be: it was sent,
// and no answer came. Its caller should read the key before repeating it.
type UnknownOutcomeError struct {
	// Op is the kind of operation, for example "put".
	Op string
	// Key is its first key; that of a lease is empty.
	Key string
	// Err is why there is no answer. It wraps a context's error if that ended first.
	Err error
}

func (e *UnknownOutcomeError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s %.64q: %v", e.Op, e.Key, e.Err)
}

// Unwrap makes errors.Is(err, shard.ErrUnknownOutcome) true.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// explain converts the error of an operation to its type (X1).
func (c *Client) explain(o *Op, err error) error {
	if errors.Is(err, shard.ErrUnknownOutcome) {
		return &UnknownOutcomeError{Op: o.kind.String(), Key: o.firstKey(), Err: err}
	}
	return c.ended(err)
}

// ended returns the error of an operation of which nothing was applied.
func (c *Client) ended(err error) error {
	switch {
	case err == nil || errors.Is(err, ErrClosed):
		return err
	case c.isClosed():
		return fmt.Errorf("%w: %v", ErrClosed, err)
	case errors.Is(err, shard.ErrStopped):
		return fmt.Errorf("%w: %w", shard.ErrUnavailable, err)
	}
	return err
}

func (c *Client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}
