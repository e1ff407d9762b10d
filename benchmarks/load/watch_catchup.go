package load

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watchCatchUp resumes a watch far in the past, again and again until the duration is
// over and the last has come to its end. One operation is a watch that has received all
// that happened since.
type watchCatchUp struct{}

// catchUpTimeout is longer than the timeout of other operations, because a server may be slow to
// read old events.
const catchUpTimeout = time.Minute

func (watchCatchUp) Name() string    { return "watch-catchup" }
func (watchCatchUp) About() string   { return "resume a watch behind many events, by one client" }
func (watchCatchUp) Clients(int) int { return 1 }

// Measure implements Workload.
func (watchCatchUp) Measure(ctx context.Context, e *Env, p Plan) (Result, error) {
	before, err := e.Conn(0).Put(ctx, catchUpKeys.under(0), "before")
	if err != nil {
		return Result{}, fmt.Errorf("write the first event: %w", err)
	}
	if err := e.write(ctx, e.CatchUp, func(i int) string { return catchUpKeys.under(i % watchedKeys) }); err != nil {
		return Result{}, err
	}
	from, next := before.Header.Revision+1, 0
	return runWhole(p, func(win window, rec *recorder) error {
		for started := win.start; time.Since(win.start) < p.Duration && ctx.Err() == nil; started = time.Now() {
			one, cancel := context.WithTimeout(ctx, catchUpTimeout)
			err := catchUp(one, e.Conn(next), from, e.CatchUp)
			cancel()
			rec.add(0, win, started, time.Now(), err)
			next++ // the next at another node
		}
		return ctx.Err()
	})
}

// catchUp watches from a revision until n events have come.
func catchUp(ctx context.Context, conn *clientv3.Client, from int64, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got := 0
	for resp := range conn.Watch(ctx, catchUpKeys.prefix(0)+"/", clientv3.WithPrefix(), clientv3.WithRev(from)) {
		if err := resp.Err(); err != nil {
			return err
		}
		if got += len(resp.Events); got >= n {
			break
		}
	}
	if got != n {
		return fmt.Errorf("watch: %d events where %d were written", got, n)
	}
	return nil
}
