package load

import (
	"context"
	"sync"
	"time"
)

// pace calls begin at each time between start and end that the rate gives. None is left
// out: while begin takes long the next ones come late, with the time at which they
// were due (L6). With a grain, those that are due within one begin together at its end.
func pace(ctx context.Context, rate int, grain time.Duration, start, end time.Time, begin func(due time.Time)) {
	for i := 0; ctx.Err() == nil; i++ {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if !due.Before(end) {
			return
		}
		if wait := time.Until(due); wait > 0 {
			if pause(ctx, max(wait, grain)); ctx.Err() != nil {
				return // it was not due yet
			}
		}
		begin(due)
	}
}

// atRate has n clients take turns, so that operations begin at a fixed rate whatever the
// servers do. When all clients wait for answers, the next operation begins late, which is
// part of its latency. The timeout counts from when it was due, too.
func atRate(ctx context.Context, rate, n int, timeout time.Duration, win window, rec *recorder, client func(i int) Operation) {
	turns := make(chan time.Time)
	var wg sync.WaitGroup
	for i := range n {
		op := client(i)
		wg.Go(func() {
			for due := range turns {
				one, cancel := context.WithDeadline(ctx, due.Add(timeout))
				err := op(one)
				cancel()
				rec.add(i, win, due, time.Now(), err)
			}
		})
	}
	pace(ctx, rate, 0, time.Now(), win.end, func(due time.Time) {
		select {
		case turns <- due:
		case <-ctx.Done():
		}
	})
	close(turns)
	wg.Wait()
}
