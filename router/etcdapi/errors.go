package etcdapi

import (
	"context"

	"github.com/flotilla-kv/flotilla/router/etcderr"
)

// readError is what the client of a request that changes nothing is told (E2, E3). ctx is
// the client's.
func readError(ctx context.Context, err error) error { return etcderr.Read(ctx, err) }

// writeError is what the client of a request that may change something is told (E2, E3).
func writeError(err error) error { return etcderr.Write(err) }
