package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// failure is an error with an exit code for scripts.
type failure struct {
	code  int
	cause error
}

func (f *failure) Error() string { return f.cause.Error() }
func (f *failure) Unwrap() error { return f.cause }

// exitCode is the exit code for a command's error.
func exitCode(err error) int {
	var f *failure
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &f):
		return f.code
	}
	return exitFailed
}

// explain turns a request's error into one line that says what happened and what can be done about
// it.
func explain(err error, timeout time.Duration, writes bool) error {
	if err == nil {
		return nil
	}
	code, text := describe(err)
	switch code {
	case codes.DeadlineExceeded:
		text = fmt.Sprintf("no answer within %s (--command-timeout)", timeout)
	case codes.Unimplemented:
		if strings.Contains(text, "unknown service "+adminpb.Admin_ServiceDesc.ServiceName) {
			return fmt.Errorf("this command is for Flotilla, and what answered is something else, an etcd for example: %s", text)
		}
		if strings.Contains(text, "unknown service etcdserverpb.") {
			return fmt.Errorf("what answered is no client port, a node's port for its peers perhaps; --endpoints wants the addresses after --client-addr: %s", text)
		}
		return fmt.Errorf("this cluster does not offer it: %s", text)
	case codes.Unavailable, codes.Canceled:
	default:
		return fmt.Errorf("%s%s", text, advice(err))
	}
	if writes {
		return &failure{exitUnknown, fmt.Errorf("%s; the change may have been made or not: read before you try again", text)}
	}
	if code == codes.Canceled {
		return &failure{exitFailed, errors.New(text)}
	}
	return &failure{exitUnavailable, fmt.Errorf("%s; see flotilla endpoint health --cluster", text)}
}

// describe returns an error's code, and its text without gRPC's framing, on one line.
func describe(err error) (codes.Code, string) {
	code, text := status.Code(err), status.Convert(err).Message()
	var etcd rpctypes.EtcdError
	switch {
	case errors.As(err, &etcd):
		code, text = etcd.Code(), etcd.Error()
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code, text = codes.Canceled, "interrupted"
	}
	return code, strings.TrimPrefix(strings.Join(strings.Fields(text), " "), "flotilla: ") // every error begins so
}

// isRefusal reports whether err is etcd's, also where it comes from another service than etcd's.
func isRefusal(err error, refusal error) bool { return errors.Is(rpctypes.Error(err), refusal) }

// advice says what to do about an error whose text does not.
func advice(err error) string {
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return "; the history before that is gone, use a later --rev or none"
	case errors.Is(err, rpctypes.ErrFutureRev):
		return "; nothing has that revision yet, flotilla get KEY -o json shows the current one"
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return "; it has expired or was revoked, flotilla lease list shows the others"
	case isRefusal(err, rpctypes.ErrUserEmpty):
		return "; authentication is enabled: say who you are with --user NAME:PASSWORD or FLOTILLA_USER"
	case isRefusal(err, rpctypes.ErrPermissionDenied):
		return "; the user's roles do not allow it, etcdctl user get NAME --detail shows what they do"
	case errors.Is(err, rpctypes.ErrNoSpace):
		return "; make room on the nodes' disks, flotilla del still works"
	}
	return ""
}
