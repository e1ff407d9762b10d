package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/client"
)

// Grown runs the given workloads on ever larger keyspaces: for each number of keys, ascending, the
// missing ones are written, as fast as the system accepts them, and then each workload runs. Names
// contain the number.
func Grown(workloads []Workload, keys []int) ([]Workload, error) {
	var out []Workload
	last := 0
	for _, n := range keys {
		if n <= last {
			return nil, fmt.Errorf("keyspaces of %d and then %d keys: each must be larger than the last", last, n)
		}
		last = n
		out = append(out, growth{n})
		for _, w := range workloads {
			out = append(out, named{w, w.Name() + "-" + count(n)})
		}
	}
	return out, nil
}

// named is a workload by another name.
type named struct {
	Workload
	name string
}

func (w named) Name() string { return w.name }

// count writes millions and thousands short.
func count(n int) string {
	for _, unit := range []struct {
		of   int
		name string
	}{{1_000_000, "M"}, {1000, "k"}} {
		if n%unit.of == 0 {
			return fmt.Sprintf("%d%s", n/unit.of, unit.name)
		}
	}
	return fmt.Sprint(n)
}

// growth writes the shared keyspace up to a number of keys. One operation is one key.
type growth struct{ keys int }

func (w growth) Name() string  { return "load-" + count(w.keys) }
func (w growth) About() string { return "keys written until there are " + count(w.keys) }

// Clients is how many batches are in flight.
func (growth) Clients(int) int { return growers }

const (
	// growers is enough to keep all processors busy.
	growers = 8
	// growBatch is the most that etcd takes in one transaction.
	growBatch = 128
	// growTimeout is for how long a batch is tried that hangs or fails, as those of an etcd do that cannot keep up. It
	// gives each try 7 s.
	growTimeout = time.Minute
	// growPause is between two tries.
	growPause = 100 * time.Millisecond
)

// Measure implements Workload. The written keys stay, so memory per key is that of the keys that
// were missing.
func (w growth) Measure(ctx context.Context, e *Env, p Plan) (Result, error) {
	from := e.written
	put, closeAll, err := e.putter(ctx)
	if err != nil {
		return Result{}, err
	}
	defer closeAll()
	got, err := runWhole(p, func(win window, rec *recorder) error {
		return inBatches(ctx, from, w.keys, func(ctx context.Context, worker, from, to int) error {
			started := time.Now()
			ctx, cancel := context.WithTimeout(ctx, growTimeout)
			defer cancel()
			err := persist(ctx, func() error { return put(ctx, worker, from, to) },
				func(err error) { rec.add(worker, win, started, time.Now(), err) })
			if err != nil {
				return fmt.Errorf("write keys %d to %d: %w", from, to, err)
			}
			ended := time.Now()
			for range to - from {
				rec.add(worker, win, started, ended, nil)
			}
			return nil
		})
	})
	e.written, e.Keys, e.filled = w.keys, w.keys, err == nil
	got.Held = int64(w.keys - from)
	return got, err
}

// persist tries until it succeeds or ctx ends. Every failure is told.
func persist(ctx context.Context, try func() error, failed func(error)) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		failed(err)
		select {
		case <-time.After(growPause):
		case <-ctx.Done():
			return err
		}
	}
}

// inBatches does something with every number between two, growers batches at a time. It stops at
// the first failure.
func inBatches(ctx context.Context, from, to int, do func(ctx context.Context, worker, from, to int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	failures := make([]error, growers)
	for w := range failures {
		wg.Go(func() {
			for failures[w] == nil {
				end := int(next.Add(growBatch))
				if end-growBatch >= to {
					return
				}
				failures[w] = do(ctx, w, end-growBatch, min(end, to))
			}
			cancel()
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}

// putter writes keys between two numbers, in the way that is the fastest for the system: in
// transactions, or by the native client in batches, which may lie in any shards.
func (e *Env) putter(ctx context.Context) (put func(ctx context.Context, worker, from, to int) error, closeAll func(), err error) {
	if !e.Native {
		return e.putTxn, func() {}, nil
	}
	c, err := e.native(ctx)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, _, from, to int) error {
		ops := make([]client.Op, 0, to-from)
		for i := from; i < to; i++ {
			ops = append(ops, client.Put(sharedKeys.key(i), e.bytes(e.random(i))))
		}
		for _, outcome := range c.Batch(ctx, ops...) {
			if outcome.Err != nil {
				return outcome.Err
			}
		}
		return nil
	}, func() { c.Close() }, nil
}

func (e *Env) putTxn(ctx context.Context, worker, from, to int) error {
	ops := make([]clientv3.Op, 0, to-from)
	for i := from; i < to; i++ {
		ops = append(ops, clientv3.OpPut(sharedKeys.key(i), e.value(e.random(i))))
	}
	_, err := e.Conn(worker).Txn(ctx).Then(ops...).Commit()
	return err
}
