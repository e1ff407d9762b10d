package router

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

const (
	backoffMin = 2 * time.Millisecond
	backoffMax = 250 * time.Millisecond
	// backoffBusy is the minimum wait before an overloaded node is asked again.
	backoffBusy = 50 * time.Millisecond
)

// backoff paces the attempts of one request: the first retry is immediate, then the wait doubles,
// with jitter, so that waiting for an election costs little.
type backoff struct{ next time.Duration }

// wait returns false when ctx ends first. err is the failure of the last attempt.
func (b *backoff) wait(ctx context.Context, err error) bool {
	if errors.Is(err, shard.ErrOverloaded) {
		b.next = max(b.next, backoffBusy)
	}
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
