package node

import (
	"context"
	"time"
)

// bell wakes a loop that waits for it. Rung again before the loop has heard it, it wakes it
// once; nobody who rings waits.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// pause waits for a while, or until ctx ends, and then fails.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
