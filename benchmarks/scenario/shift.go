package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// Shifting configures how the hot range moves.
type Shifting struct {
	// Every is how long it stays, Times how many positions it takes.
	Every time.Duration
	Times int
	// SplitWrites is the number of writes per second from which a shard is split.
	SplitWrites int
	// On and Off say whether to run with the balancer, without, or both.
	On, Off bool
}

// Shift puts keys of which a few neighbours get most of the load, and different ones from time to
// time. A run without the balancer shows what the balancer achieves.
func Shift(ctx context.Context, c Config, sh Shifting) (Outcome, error) {
	out := Outcome{Name: "shift"}
	if c.Rate < 1 || sh.Every < 5*time.Second || sh.Times < 1 {
		return out, errors.New("shift needs a rate of at least 1, and a hot range that stays at least 5 s and is somewhere at least once")
	}
	for _, way := range []struct {
		run     bool
		setting string
	}{{sh.Off, "off"}, {sh.On, "on"}} {
		if !way.run {
			continue
		}
		if err := c.play(ctx, func(ctx context.Context, s *stage) error { return s.shift(ctx, sh, way.setting, &out) }); err != nil {
			return out, fmt.Errorf("balancer %s: %w", way.setting, err)
		}
	}
	return out, nil
}

func (s *stage) shift(ctx context.Context, sh Shifting, balancer string, out *Outcome) error {
	for _, setting := range [][2]string{{"rebalance", balancer}, {"split-writes", fmt.Sprint(sh.SplitWrites)}, {"settle", "3s"}, {"rebalance-interval", "2s"}} {
		if err := s.admin.set(ctx, setting[0], setting[1]); err != nil {
			return err
		}
	}
	if err := s.env.Fill(ctx); err != nil {
		return err
	}
	hot := newHotRange(s.env, sh.Every)
	steady := load.Begin(ctx, s.Rate, requestTimeout, s.env.Puts(hot.key))
	var owners ownership
	place := 0
	for end := time.Duration(sh.Times) * sh.Every; steady.Now() < end; {
		shards, err := s.admin.shards(ctx)
		if now := int(steady.Now()/sh.Every) + 1; now > place && err == nil {
			place = now
			s.Log.Info("hot range", "place", place, "of", sh.Times, "balancer", balancer, "shards", len(shards))
		}
		if err == nil {
			owners = append(owners, sight{steady.Now(), shards})
			err = rest(ctx, time.Second)
		}
		if err != nil {
			steady.Stop()
			return err
		}
	}
	out.tellShift(steady.Stop(), owners, sh, s.Nodes, "balancer "+balancer)
	return nil
}

// hotRange picks keys by popularity: neighbours in the order of keys have neighbouring
// ranks, and where the first rank lies changes with time.
type hotRange struct {
	env    *load.Env
	sorted []int // numbers of keys, by key
	began  time.Time
	every  time.Duration
}

func newHotRange(e *load.Env, every time.Duration) *hotRange {
	h := &hotRange{env: e, began: time.Now(), every: every}
	for i := range e.Keys {
		h.sorted = append(h.sorted, i)
	}
	slices.SortFunc(h.sorted, func(a, b int) int { return cmp.Compare(load.Key(a), load.Key(b)) })
	return h
}

// stride moves the range far away each time, and does not come back soon.
const stride = 0.38

func (h *hotRange) key(number int) int {
	place := int(time.Since(h.began) / h.every)
	first := int(stride*float64(place)*float64(len(h.sorted))) + len(h.sorted)/10
	return h.sorted[(first+h.env.Popular(number))%len(h.sorted)]
}

// ownership is who led what, in the order of time.
type ownership []sight

// sight is one look at the shards.
type sight struct {
	at     time.Duration
	shards []*adminpb.Shard
}

// balanced is how much more than the mean of all nodes the busiest may have.
const balanced = 1.3

// balancedFor is for how many seconds it must stay so to count.
const balancedFor = 3

func (o *Outcome) tellShift(t load.Trace, owners ownership, sh Shifting, nodes int, way string) {
	busiest := owners.busiest(t, nodes)
	line := Line{Name: way, Seconds: t.Seconds()}
	for n := range sh.Times {
		from, to := time.Duration(n)*sh.Every, time.Duration(n+1)*sh.Every
		line.Marks = append(line.Marks, Mark{from, "hot range moves"})
		o.Phases = append(o.Phases, phaseOf(fmt.Sprintf("%s, place %d", way, n+1), t, from, to))
		name := fmt.Sprintf("%s, place %d: ", way, n+1)
		o.Figures = append(o.Figures, Figure{Name: name + "busiest node at the end, of the mean", Value: mean(busiest[max(0, secondsOf(to)-5):secondsOf(to)]), Unit: "x"})
		if after, ok := settledAfter(busiest[secondsOf(from):secondsOf(to)]); ok {
			o.Figures = append(o.Figures, Figure{Name: name + "balanced after", Value: float64(after), Unit: "s"})
		} else {
			o.Figures = append(o.Figures, Figure{Name: name + "not balanced within", Value: sh.Every.Seconds(), Unit: "s"})
		}
	}
	o.Figures = append(o.Figures,
		Figure{Name: way + ": failed requests", Value: float64(t.Failed()), Bound: atMost(0, 0)},
		Figure{Name: way + ": shards at the end", Value: float64(len(owners[len(owners)-1].shards))},
	)
	o.Phases = append(o.Phases, phaseOf(way+", all", t, 0, time.Duration(sh.Times)*sh.Every))
	o.Lines = append(o.Lines, line)
}

func secondsOf(d time.Duration) int { return int(d / time.Second) }

// busiest is for each second of the trace how many times the mean of all nodes the one got
// that led the keys of most puts.
func (o ownership) busiest(t load.Trace, nodes int) []float64 {
	var led []map[string]int
	for _, s := range t {
		at := secondsOf(s.Due)
		for len(led) <= at {
			led = append(led, make(map[string]int))
		}
		led[at][o.leader(s)]++
	}
	out := make([]float64, len(led))
	for i, by := range led {
		sum, most := 0, 0
		for _, n := range by {
			sum, most = sum+n, max(most, n)
		}
		if sum > 0 {
			out[i] = float64(most*nodes) / float64(sum)
		}
	}
	return out
}

// leader is who led a put's key, as far as was known when it was due.
func (o ownership) leader(s load.Sample) string {
	i, _ := slices.BinarySearchFunc(o, s.Due, func(one sight, at time.Duration) int { return cmp.Compare(one.at, at) })
	return owner(o[max(0, i-1)].shards, load.Key(s.Key)).Leader
}

// settledAfter is from which second on no node had too much for some seconds.
func settledAfter(busiest []float64) (int, bool) {
	for i := range busiest {
		if i+balancedFor <= len(busiest) && slices.Max(busiest[i:i+balancedFor]) <= balanced {
			return i, true
		}
	}
	return 0, false
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(1, len(values)))
}
