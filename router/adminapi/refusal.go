package adminapi

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// refusal is an error as clients see it. Unavailable means an unknown outcome.
func refusal(err error) error {
	var refused *placement.RefusedError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return refuse(codes.Unavailable, "%v", err)
	}
	code := codes.FailedPrecondition
	switch refused.Code {
	case placementpb.Code_INVALID_ARGUMENT:
		code = codes.InvalidArgument
	case placementpb.Code_NOT_FOUND:
		code = codes.NotFound
	case placementpb.Code_CONFLICT:
		code = codes.Aborted
	}
	return refuse(code, "%s", refused.Message)
}

// isUnknown reports whether a change may or may not have been made.
func isUnknown(err error) bool { return status.Code(err) == codes.Unavailable }

// refusalText is a refusal's text without the prefix that all of them have.
func refusalText(err error) string {
	return strings.TrimPrefix(status.Convert(err).Message(), errorPrefix)
}

const errorPrefix = "flotilla: "

func refuse(code codes.Code, format string, args ...any) error {
	return status.Error(code, errorPrefix+fmt.Sprintf(format, args...))
}
