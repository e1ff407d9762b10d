package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/peer"
)

// Overloading configures the excess load.
type Overloading struct {
	// Factor times the cluster's capacity is requested, for For, by Clients together. Each has one
	// put at a time: a put that is due while all of them wait for responses has failed.
	Factor  float64
	For     time.Duration
	Clients int
	// Finders determine the capacity, each with one put at a time.
	Finders int
	// Renewer is the command that runs Renew for the endpoints that are appended to it.
	Renewer []string
}

const (
	// gentle is the share of what the cluster can do that is asked before and after.
	gentle = 0.5
	// recovered: p99 is back when it is no more than this many times what it was.
	recovered = 2
	// An overload of flatFrom has filled all that servers fill after a third of it; from then on
	// their memory must not grow, by more than it goes up and down.
	flatFrom = 3 * time.Minute
	grownMax = 1.05
)

// Overload requests more than the cluster's capacity, and measures how much of it remains, leases
// that must be renewed meanwhile, and the recovery. The rate of the configuration is not used.
func Overload(ctx context.Context, c Config, o Overloading) (Outcome, error) {
	out := Outcome{Name: "overload"}
	if o.Factor <= 1 || o.For < time.Second || o.Clients < 1 || o.Finders < 1 || len(o.Renewer) == 0 || c.Calm < calmMin {
		return out, errors.New("the factor must be above 1, the times at least a second, and clients at least 1")
	}
	err := c.play(ctx, func(ctx context.Context, s *stage) error { return s.overload(ctx, o, &out) })
	return out, err
}

// work is how many puts a second there were, and what each took of the processors, in microseconds.
type work struct{ perSecond, servers, clients float64 }

// worked is the work of n puts between two marks.
func worked(n int, d time.Duration, began, ended spent) work {
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(1, n)) }
	return work{float64(n) / d.Seconds(), each(ended.servers - began.servers), each(ended.clients - began.clients)}
}

// spent is the processor time of the servers, and of this process with its clients, so far.
type spent struct{ servers, clients time.Duration }

func (s *stage) spent() (spent, error) {
	servers, err := s.cluster.Usage()
	if err != nil {
		return spent{}, err
	}
	clients, err := peer.OwnCPU()
	return spent{servers.CPU, clients}, err
}

// overloaded is what was seen of an overload.
type overloaded struct {
	// peaks are from before and after: a store that holds more costs more, and machines are not
	// always as fast.
	peaks   [2]work
	under   work // while too much was asked
	puts    [3]load.Trace
	renewed load.Trace
	began   [3]time.Duration // of the puts' parts, as renewed counts
	most    int64            // resident memory of all servers
	thirds  [3]int64         // of the overload: resident memory, mean
}

func (s *stage) overload(ctx context.Context, o Overloading, out *Outcome) error {
	var got overloaded
	err := s.env.Fill(ctx) // a key's first put costs more than others
	if err != nil {
		return err
	}
	if got.peaks[0], err = s.peak(ctx, o.Finders); err != nil {
		return err
	}
	asked := o.Factor * got.peaks[0].perSecond
	leases, err := startRenewer(ctx, append(slices.Clone(o.Renewer), s.cluster.Endpoints()...))
	if err != nil {
		return err
	}
	memory := s.watchMemory(ctx, leases.now)
	err = s.ask(ctx, o, asked, leases.now, &got)
	renewed, failed := leases.stop()
	seen := memory()
	got.renewed, got.most = renewed, seen.most()
	for i := range got.thirds {
		from := got.began[1] + time.Duration(i)*o.For/3
		got.thirds[i] = seen.mean(from, from+o.For/3)
	}
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if got.peaks[1], err = s.peak(ctx, o.Finders); err != nil {
		return err
	}
	out.tellOverload(o, s.Calm, asked, got)
	return nil
}

// ask asks for little, for too much, and for little again.
func (s *stage) ask(ctx context.Context, o Overloading, asked float64, now func() time.Duration, got *overloaded) error {
	for i, part := range []struct {
		rate float64
		d    time.Duration
	}{{gentle * asked / o.Factor, s.Calm}, {asked, o.For}, {gentle * asked / o.Factor, s.Calm}} {
		s.Log.Info("ask", "puts_per_second", int(part.rate), "for", part.d)
		before, err := s.spent()
		if err != nil {
			return err
		}
		got.began[i] = now()
		steady := load.BeginBusy(ctx, int(part.rate), o.Clients, requestTimeout, s.env.ClientPuts(s.env.Anywhere))
		if err := rest(ctx, part.d); err != nil {
			steady.Stop()
			return err
		}
		after, err := s.spent()
		if i != 1 || err != nil {
			got.puts[i] = steady.Stop()
			continue
		}
		got.puts[i] = steady.Abandon() // who is told to go away does not wait for answers
		got.under = worked(len(got.puts[i].Ended(0, part.d)), part.d, before, after)
	}
	return nil
}

// peak is what the cluster can do.
func (s *stage) peak(ctx context.Context, clients int) (work, error) {
	found, err := load.Named([]string{"put"})
	if err != nil {
		return work{}, err
	}
	var began, ended spent
	got, err := load.Run(ctx, found[0], s.env, load.Plan{
		Clients: clients, WarmUp: s.Calm / 4, Duration: s.Calm,
		Begin: func() (err error) {
			began, err = s.spent()
			return err
		},
		End: func() (err error) {
			ended, err = s.spent()
			return err
		},
	})
	if err == nil && got.Operations == 0 {
		err = fmt.Errorf("no put ended well: %v", got.Errors)
	}
	peak := worked(int(got.Operations), s.Calm, began, ended)
	s.Log.Info("peak", "puts_per_second", int(peak.perSecond))
	return peak, err
}

// resident is how much resident memory the servers had at some time.
type resident struct {
	at    time.Duration
	bytes int64
}

type residents []resident

func (r residents) most() (most int64) {
	for _, seen := range r {
		most = max(most, seen.bytes)
	}
	return most
}

// mean is that from one time until another; 0 if nobody looked.
func (r residents) mean(from, to time.Duration) int64 {
	sum, n := int64(0), int64(0)
	for _, seen := range r {
		if seen.at >= from && seen.at < to {
			sum, n = sum+seen.bytes, n+1
		}
	}
	return sum / max(1, n)
}

// watchMemory looks at the servers' resident memory twice a second until it is asked what it
// has seen.
func (s *stage) watchMemory(ctx context.Context, now func() time.Duration) (seen func() residents) {
	ctx, cancel := context.WithCancel(ctx)
	var got residents
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if u, err := s.cluster.Usage(); err == nil {
				got = append(got, resident{now(), u.RSSBytes})
			}
			_ = rest(ctx, time.Second/2) // ends with ctx
		}
	})
	return func() residents {
		cancel()
		wg.Wait()
		return got
	}
}

func (o *Outcome) tellOverload(how Overloading, calm time.Duration, asked float64, got overloaded) {
	names := [3]string{"before", "overload", "after"}
	lasts := [3]time.Duration{calm, how.For, calm}
	for i, part := range got.puts {
		o.Phases = append(o.Phases,
			phaseOf("puts "+names[i], part, 0, lasts[i]),
			phaseOf("lease renewals "+names[i], got.renewed, got.began[i], got.began[i]+lasts[i]))
		o.Lines = append(o.Lines, Line{Name: "puts " + names[i], Seconds: part.Seconds()})
	}
	o.Lines = append(o.Lines, Line{Name: "lease renewals", Seconds: got.renewed.Seconds()})
	peak := (got.peaks[0].perSecond + got.peaks[1].perSecond) / 2
	lease := got.renewed.Between(got.began[1], got.began[1]+how.For)
	for i, when := range []string{"before", "after"} {
		o.Figures = append(o.Figures, got.peaks[i].figures("peak "+when)...)
	}
	o.Figures = append(o.Figures, Figure{Name: "asked for", Value: asked, Unit: "puts/s"})
	o.Figures = append(o.Figures, got.under.figures("goodput under overload")...)
	o.Figures = append(o.Figures,
		Figure{Name: "goodput, of the mean of both peaks", Value: 100 * got.under.perSecond / peak, Unit: "%", Bound: atLeast(90)},
		Figure{Name: "failed puts", Value: float64(got.puts[1].Failed())},
		Figure{Name: "lease renewals under overload: p99", Value: millis(lease.Quantile(0.99)), Unit: "ms", Bound: atMost(200, 200)},
		Figure{Name: "lease renewals under overload: failed", Value: float64(lease.Failed()), Bound: atMost(0, 0)},
		Figure{Name: "most resident memory of all servers", Value: float64(got.most) / (1 << 20), Unit: "MiB"},
	)
	for i, when := range []string{"first", "second", "last"} {
		f := Figure{Name: "resident memory, " + when + " third of the overload", Value: float64(got.thirds[i]) / (1 << 20), Unit: "MiB"}
		if i == 2 && how.For >= flatFrom {
			enough := grownMax * float64(got.thirds[1]) / (1 << 20)
			f.Bound = atMost(enough, enough)
		}
		o.Figures = append(o.Figures, f)
	}
	if after, ok := recovery(got.puts[0], got.puts[2]); ok {
		o.Figures = append(o.Figures, Figure{Name: "p99 at half the peak as before again, after", Value: float64(after), Unit: "s", Bound: atMost(1, 1)}) // less than 2 s
	} else {
		o.Figures = append(o.Figures, Figure{Name: "p99 at half the peak not as before within", Value: calm.Seconds(), Unit: "s", Bound: atMost(0, 0)})
	}
}

func (w work) figures(name string) []Figure {
	return []Figure{
		{Name: name, Value: w.perSecond, Unit: "puts/s"},
		{Name: name + ": server CPU", Value: w.servers, Unit: "µs/put"},
		{Name: name + ": clients' CPU", Value: w.clients, Unit: "µs/put"},
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
