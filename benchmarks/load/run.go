package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Plan says how long and with how many clients a workload runs.
type Plan struct {
	Clients  int
	WarmUp   time.Duration
	Duration time.Duration
	// Rate is how many operations per second the clients start together, at fixed times. 0: each
	// starts one when its last has ended. Workloads with a rate of their own ignore it.
	Rate int
	// Begin and End are called at the start and at the end of the measured window, to read its
	// counters. nil: there are none.
	Begin, End func() error
}

// operationTimeout ends an operation that hangs; it then counts as an error.
const operationTimeout = 10 * time.Second

// failurePause keeps a client whose operations fail at once from taking the CPU away from the
// measured servers.
const failurePause = 10 * time.Millisecond

// Run measures one workload.
func Run(ctx context.Context, w Workload, e *Env, p Plan) (Result, error) {
	got, err := w.Measure(ctx, e, p)
	if err != nil {
		return Result{}, fmt.Errorf("measure %s: %w", w.Name(), err)
	}
	return got, nil
}

// runClients warms up n clients and measures what they do: in a closed loop, or at the
// plan's rate.
func runClients(ctx context.Context, p Plan, n int, timeout time.Duration, client func(i int) Operation) (Result, error) {
	win, rec := p.window(), newRecorder()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	if p.Rate > 0 {
		wg.Go(func() { atRate(ctx, p.Rate, n, timeout, win, rec, client) })
	} else {
		for i := range n {
			op := client(i)
			wg.Go(func() { loop(ctx, op, i, timeout, win, rec) })
		}
	}
	err := p.mark(ctx, win)
	if err != nil {
		cancel() // the clients need not go on
	}
	wg.Wait()
	if err != nil {
		return Result{}, err
	}
	return rec.result(win), nil
}

// runWhole measures work that takes as long as it takes: the window ends with it.
func runWhole(p Plan, work func(win window, rec *recorder) error) (Result, error) {
	if err := call(p.Begin); err != nil {
		return Result{}, err
	}
	start := time.Now()
	win, rec := window{start: start, end: start.Add(time.Hour)}, newRecorder()
	if err := work(win, rec); err != nil {
		return Result{}, err
	}
	win.end = time.Now()
	return rec.result(win), call(p.End)
}

// window is the measured time of a plan that begins now.
func (p Plan) window() window {
	start := time.Now().Add(p.WarmUp)
	return window{start: start, end: start.Add(p.Duration)}
}

// loop is one client: closed, until the window is over.
func loop(ctx context.Context, op Operation, client int, timeout time.Duration, win window, rec *recorder) {
	var limit limit
	defer limit.end()
	for ctx.Err() == nil {
		started := time.Now()
		if !started.Before(win.end) {
			return
		}
		err := op(limit.begin(ctx, started, timeout))
		rec.add(client, win, started, time.Now(), err)
		if err != nil {
			pause(ctx, failurePause)
		}
	}
}

// limitGrain is how much longer than its timeout an operation may take.
const limitGrain = time.Second

// limit ends the operations of one client that hang. Those that begin within limitGrain share
// a context: one for each was a fifth of the load's CPU where operations are cheap, on the
// machine that the servers are on.
type limit struct {
	since  time.Time
	ctx    context.Context
	cancel context.CancelFunc // nil before the first
}

func (l *limit) begin(ctx context.Context, now time.Time, timeout time.Duration) context.Context {
	if l.cancel == nil || now.Sub(l.since) >= limitGrain {
		l.end()
		l.since = now
		l.ctx, l.cancel = context.WithTimeout(ctx, timeout+limitGrain)
	}
	return l.ctx
}

// end is called when no operation is under way.
func (l *limit) end() {
	if l.cancel != nil {
		l.cancel()
	}
}

// mark calls Begin and End when it is time.
func (p Plan) mark(ctx context.Context, win window) error {
	pause(ctx, time.Until(win.start))
	if err := call(p.Begin); err != nil {
		return err
	}
	pause(ctx, time.Until(win.end))
	if err := call(p.End); err != nil {
		return err
	}
	return ctx.Err()
}

func call(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
