package testcluster

import (
	"context"
	"errors"
	"testing"
	"time"
)

const (
	// patience is how long a condition may take on a busy machine.
	patience = time.Minute
	// glance is the pause between two looks at a condition.
	glance = 10 * time.Millisecond
)

// Eventually waits until cond returns nil and fails the test with its last error if
// that takes too long. ctx, which cond gets, ends with the test's patience.
func Eventually(tb testing.TB, what string, cond func(ctx context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	var last error
	for {
		err := cond(ctx)
		if err == nil {
			return
		}
		// What the end of ctx did to the last look says less than the look before it.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("waited %s for %s: %v", patience, what, last)
		}
	}
}

// Until is Eventually for a condition that is only true or not.
func Until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	Eventually(tb, what, func(context.Context) error {
		if !cond() {
			return errors.New("not yet")
		}
		return nil
	})
}
