package load

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watchIdle opens watchers to whom nothing happens. One operation is one watcher opened;
// what the servers' memory grows by is what they cost.
type watchIdle struct{}

func (watchIdle) Name() string    { return "watch-idle" }
func (watchIdle) About() string   { return "open watchers to whom nothing happens: memory of each" }
func (watchIdle) Clients(int) int { return 1 }

// Measure implements Workload. The watchers stay until the counters have been read.
func (watchIdle) Measure(ctx context.Context, e *Env, p Plan) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got, err := runWhole(p, func(win window, rec *recorder) error {
		_, err := e.openWatches(ctx, e.IdleWatchers, watchKeys.prefix(1)+"/", []clientv3.OpOption{clientv3.WithPrefix()},
			func(i int, began time.Time) { rec.add(i, win, began, time.Now(), nil) })
		return err
	})
	got.Held = got.Operations
	return got, err
}
