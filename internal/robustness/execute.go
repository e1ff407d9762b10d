package robustness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// execute carries out the plan. If the context ends early, attacks that have begun are still ended: when it returns
// without an error, it leaves no node down or paused. It returns how many changes of the layout were made.
func execute(ctx context.Context, sys System, plan []Attack) (made int, err error) {
	began := time.Now()
	running := make(map[int]bool)
	var changes sync.WaitGroup
	var changed atomic.Int64
	defer func() {
		changes.Wait()
		made = int(changed.Load())
	}()
	for _, m := range moments(plan) {
		if wait(ctx, m.at-time.Since(began)) != nil && (!m.end || !running[m.attack]) {
			continue
		}
		a := plan[m.attack]
		if !a.Fault.stops() {
			if !m.end { // it takes a while, and other faults continue meanwhile
				changes.Go(func() {
					// Under faults it may fail, like any request; that is no finding.
					if a.change(ctx, sys) == nil {
						changed.Add(1)
					}
				})
			}
			continue
		}
		act := a.begin
		if m.end {
			act = a.finish
		}
		if err := act(sys); err != nil {
			return 0, fmt.Errorf("attack %s: %w", a, err)
		}
		running[m.attack] = !m.end
	}
	return 0, nil
}

// moment is the beginning or the end of an attack.
type moment struct {
	at     time.Duration
	attack int
	end    bool
}

func moments(plan []Attack) []moment {
	var out []moment
	for i, a := range plan {
		out = append(out, moment{at: a.At, attack: i}, moment{at: a.At + a.Lasts, attack: i, end: true})
	}
	slices.SortStableFunc(out, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	return out
}

func (a Attack) change(ctx context.Context, sys System) error {
	switch a.Fault {
	case Split:
		return sys.Split(ctx, a.Key)
	case Merge:
		return sys.Merge(ctx, a.Key)
	case Rejoin:
		_ = sys.Split(ctx, a.Key) // refused if a shard begins at this key already; then that boundary is merged
		return sys.Merge(ctx, a.Key)
	case Move:
		return sys.Move(ctx, a.Key, a.Node)
	default:
		return sys.Transfer(ctx, a.Node)
	}
}

func (a Attack) begin(sys System) error {
	switch a.Fault {
	case Kill:
		return sys.Kill(a.Node)
	case Pause:
		return sys.Pause(a.Node)
	default:
		return everyNode(sys, sys.Kill)
	}
}

func (a Attack) finish(sys System) error {
	switch a.Fault {
	case Kill:
		return sys.Start(a.Node)
	case Pause:
		return sys.Resume(a.Node)
	default:
		return everyNode(sys, sys.Start)
	}
}

func everyNode(sys System, do func(node int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(sys.Endpoints()))
	for i := range errs {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// wait returns after d, or with the context's error as soon as it has ended.
func wait(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
