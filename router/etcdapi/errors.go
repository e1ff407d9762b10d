package etcdapi

import (
	"context"

	"github.com/flotilla-kv/flotilla/router/etcderr"
)

// readError is the error returned for a request that changes nothing (E2, E3). ctx is the client's.
func readError(ctx context.Context, err error) error { return etcderr.Read(ctx, err) }

// writeError is the error returned for a request that may change something (E2, E3).
func writeError(err error) error { return etcderr.Write(err) }
