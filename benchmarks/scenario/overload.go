package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
)

// Overloading says how much too much is asked.
type Overloading struct {
	// Factor times what the cluster can do is asked, for For, by Clients together. Each has one
	// put at a time: what is due while all of them wait for answers has failed.
	Factor  float64
	For     time.Duration
	Clients int
	// Finders find out what it can do, each with one put at a time.
	Finders int
	// Renewer is the command that runs Renew for the endpoints that are appended to it.
	Renewer []string
}

const (
	// gentle is the share of what the cluster can do that is asked before and after.
	gentle = 0.5
	// recovered: p99 is back when it is no more than this many times what it was.
	recovered = 2
)

// Overload asks for more than the cluster can do, and looks at what is left of what it
// could, at leases that must be renewed meanwhile, and at how it comes back. The rate of
// the configuration is not used.
func Overload(ctx context.Context, c Config, o Overloading) (Outcome, error) {
	out := Outcome{Name: "overload"}
	if o.Factor <= 1 || o.For < time.Second || o.Clients < 1 || o.Finders < 1 || len(o.Renewer) == 0 || c.Calm < calmMin {
		return out, errors.New("the factor must be above 1, the times at least a second, and clients at least 1")
	}
	err := c.play(ctx, func(ctx context.Context, s *stage) error { return s.overload(ctx, o, &out) })
	return out, err
}

func (s *stage) overload(ctx context.Context, o Overloading, out *Outcome) error {
	peak, err := s.peak(ctx, o.Finders)
	if err != nil {
		return err
	}
	s.Log.Info("peak", "puts_per_second", int(peak))
	leases, err := startRenewer(ctx, append(slices.Clone(o.Renewer), s.cluster.Endpoints()...))
	if err != nil {
		return err
	}
	memory := s.watchMemory(ctx)
	var parts [3]load.Trace
	var began [3]time.Duration
	for i, part := range []struct {
		rate float64
		d    time.Duration
	}{{gentle * peak, s.Calm}, {o.Factor * peak, o.For}, {gentle * peak, s.Calm}} {
		began[i] = leases.now()
		steady := load.BeginBusy(ctx, int(part.rate), o.Clients, requestTimeout, s.env.Puts(s.env.Anywhere))
		if err = rest(ctx, part.d); err != nil {
			steady.Stop()
			break
		}
		if i == 1 {
			parts[i] = steady.Abandon() // who is told to go away does not wait for answers
		} else {
			parts[i] = steady.Stop()
		}
	}
	renewed, failed := leases.stop()
	rss := memory()
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	out.tellOverload(o, s.Calm, peak, parts, renewed, began, rss)
	return nil
}

// peak is how many puts a second the cluster can do.
func (s *stage) peak(ctx context.Context, clients int) (float64, error) {
	found, err := load.Named([]string{"put"})
	if err != nil {
		return 0, err
	}
	got, err := load.Run(ctx, found[0], s.env, load.Plan{
		Clients: clients, WarmUp: s.Calm / 4, Duration: s.Calm, Mark: func(bool) error { return nil },
	})
	if err == nil && got.Operations == 0 {
		err = fmt.Errorf("no put ended well: %v", got.Errors)
	}
	return got.PerSecond, err
}

// watchMemory looks at the servers' resident memory until it is asked for the most that
// it has seen.
func (s *stage) watchMemory(ctx context.Context) (most func() int64) {
	ctx, cancel := context.WithCancel(ctx)
	var seen int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if u, err := s.cluster.Usage(); err == nil {
				seen = max(seen, u.RSSBytes)
			}
			_ = rest(ctx, time.Second/2) // ends with ctx
		}
	})
	return func() int64 {
		cancel()
		wg.Wait()
		return seen
	}
}

func (o *Outcome) tellOverload(how Overloading, calm time.Duration, peak float64, parts [3]load.Trace, renewed load.Trace, began [3]time.Duration, rss int64) {
	names := [3]string{"before", "overload", "after"}
	lasts := [3]time.Duration{calm, how.For, calm}
	for i, part := range parts {
		o.Phases = append(o.Phases,
			phaseOf("puts "+names[i], part, 0, lasts[i]),
			phaseOf("lease renewals "+names[i], renewed, began[i], began[i]+lasts[i]))
		o.Lines = append(o.Lines, Line{Name: "puts " + names[i], Seconds: part.Seconds()})
	}
	goodput := perSecond(parts[1], 0, how.For)
	lease := renewed.Between(began[1], began[1]+how.For)
	o.Figures = append(o.Figures,
		Figure{Name: "peak", Value: peak, Unit: "puts/s"},
		Figure{Name: "asked for", Value: how.Factor * peak, Unit: "puts/s"},
		Figure{Name: "goodput under overload", Value: goodput, Unit: "puts/s"},
		Figure{Name: "goodput, of the peak", Value: 100 * goodput / peak, Unit: "%"},
		Figure{Name: "failed puts", Value: float64(parts[1].Failed())},
		Figure{Name: "lease renewals under overload: p99", Value: millis(lease.Quantile(0.99)), Unit: "ms"},
		Figure{Name: "lease renewals under overload: failed", Value: float64(lease.Failed()), Bound: atMost(0, 0)},
		Figure{Name: "most resident memory of all servers", Value: float64(rss) / (1 << 20), Unit: "MiB"},
	)
	if after, ok := recovery(parts[0], parts[2]); ok {
		o.Figures = append(o.Figures, Figure{Name: "p99 at half the peak as before again, after", Value: float64(after), Unit: "s"})
	} else {
		o.Figures = append(o.Figures, Figure{Name: "p99 at half the peak not as before within", Value: calm.Seconds(), Unit: "s"})
	}
}

// recovery is after how many seconds the p99 of a second is about what it was before.
func recovery(before, after load.Trace) (seconds int, ok bool) {
	usual := before.Quantile(0.99)
	for i, second := range after.Seconds() {
		if second.Done > 0 && second.P99 <= recovered*usual {
			return i, true
		}
	}
	return 0, false
}
