package load

import (
	"context"
	"time"
)

// Loop measures operations that are not of a Workload: client returns the one that client i repeats.
func Loop(ctx context.Context, p Plan, timeout time.Duration, client func(i int) Operation) (Result, error) {
	return runClients(ctx, p, p.Clients, timeout, client)
}
