package placement

import (
	"fmt"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// RefusedError is a command that the meta group applied and refused. It is certain: nothing
// changed.
type RefusedError struct {
	Code    placementpb.Code
	Message string
	// Auth is etcd's reason, if there is one.
	Auth placementpb.AuthRefusal
}

func (e *RefusedError) Error() string { return e.Message }

// Unwrap lets errors.Is find shard.ErrCompacted.
func (e *RefusedError) Unwrap() error {
	if e.Code == placementpb.Code_COMPACTED {
		return shard.ErrCompacted
	}
	return nil
}

// ResultError returns nil for a command that succeeded, shard.ErrUnknownOutcome for one that
// may have, and a *RefusedError for any other.
func ResultError(r *placementpb.Result) error {
	switch r.GetCode() {
	case placementpb.Code_OK:
		return nil
	case placementpb.Code_TOO_LATE:
		return fmt.Errorf("%s: %w", r.GetMessage(), shard.ErrUnknownOutcome)
	}
	return &RefusedError{Code: r.GetCode(), Message: r.GetMessage(), Auth: r.GetAuth()}
}

func ok() *placementpb.Result { return &placementpb.Result{Code: placementpb.Code_OK} }

func refuse(code placementpb.Code, format string, args ...any) *placementpb.Result {
	return &placementpb.Result{Code: code, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *placementpb.Result {
	return refuse(placementpb.Code_INVALID_ARGUMENT, format, args...)
}
