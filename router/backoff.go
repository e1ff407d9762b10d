package router

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	backoffMin = 2 * time.Millisecond
	backoffMax = 250 * time.Millisecond
)

// backoff paces the attempts of one request: none before the first retry, then
// doubling with jitter, so that waiting for an election costs little.
type backoff struct{ next time.Duration }

// wait returns false when ctx ends first.
func (b *backoff) wait(ctx context.Context) bool {
	if b.next == 0 {
		b.next = backoffMin
		return ctx.Err() == nil
	}
	t := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer t.Stop()
	b.next = min(2*b.next, backoffMax)
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
