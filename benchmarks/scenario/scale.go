package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/peer"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// Scaling configures which numbers of shards are compared.
type Scaling struct {
	Shards []int
	// Clients are the numbers of clients that put and get, each one request at a time.
	Clients []int
	// Idle is the duration of a phase without load, to measure its cost.
	Idle time.Duration
}

// Scale starts clusters with ever more shards, and measures the cost of each shard, and of puts and
// gets on so many, for each number of clients. A cluster with one shard is always measured first,
// for comparison.
func Scale(ctx context.Context, c Config, sc Scaling) (Outcome, error) {
	out := Outcome{Name: "scale"}
	if len(sc.Shards) == 0 || len(sc.Clients) == 0 || slices.Min(sc.Clients) < 1 || sc.Idle < time.Second || c.Calm < calmMin {
		return out, errors.New("name at least one number of shards and one of clients; measuring and idleness must last a second")
	}
	var one scaled
	for i, shards := range append([]int{1}, slices.DeleteFunc(slices.Clone(sc.Shards), func(n int) bool { return n == 1 })...) {
		c.Shards = shards
		var got scaled
		if err := c.play(ctx, func(ctx context.Context, s *stage) (err error) {
			got, err = s.scale(ctx, sc)
			return err
		}); err != nil {
			return out, fmt.Errorf("%d shards: %w", shards, err)
		}
		if i == 0 {
			one = got
		}
		out.tellScale(shards, c.Nodes, got, one)
	}
	return out, nil
}

// scaled is what one number of shards gave.
type scaled struct {
	start, restart time.Duration
	table          int // bytes
	plan           time.Duration
	idleCPU        float64 // cores
	rss            int64
	costs          []Cost
}

// Cost is the result of a workload with a number of clients on a number of shards.
type Cost struct {
	Shards    int     `json:"shards"`
	Clients   int     `json:"clients"`
	Workload  string  `json:"workload"`
	PerSecond float64 `json:"per_second"`
	// OfOne is the share of the result with as many clients on one shard; 0: unknown.
	OfOne  float64 `json:"of_one_shard,omitempty"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	CPU    float64 `json:"server_cpu_us_per_op"`
	Errors int64   `json:"errors,omitempty"`
}

// costOf finds the cost of a workload with so many clients.
func (s scaled) costOf(workload string, clients int) (Cost, bool) {
	i := slices.IndexFunc(s.costs, func(c Cost) bool { return c.Workload == workload && c.Clients == clients })
	if i < 0 {
		return Cost{}, false
	}
	return s.costs[i], true
}

func (s *stage) scale(ctx context.Context, sc Scaling) (got scaled, err error) {
	got.start = s.startup
	reply, err := s.admin.Shards(ctx, &adminpb.ShardsRequest{})
	if err != nil {
		return got, fmt.Errorf("list shards: %w", err)
	}
	got.table = proto.Size(reply)
	began := time.Now()
	if _, err := s.admin.Plan(ctx, &adminpb.PlanRequest{}); err != nil {
		return got, fmt.Errorf("plan: %w", err)
	}
	got.plan = time.Since(began)
	if got.idleCPU, got.rss, err = s.idle(ctx, sc.Idle); err != nil {
		return got, err
	}
	for _, name := range []string{"put", "get"} {
		for _, clients := range sc.Clients {
			cost, err := s.costOf(ctx, name, clients)
			if err != nil {
				return got, err
			}
			s.Log.Info("measured", "shards", s.Shards, "clients", clients, "workload", name, "per_second", int(cost.PerSecond), "p99_ms", cost.P99)
			got.costs = append(got.costs, cost)
		}
	}
	began = time.Now()
	if err := s.cluster.Restart(ctx); err != nil {
		return got, fmt.Errorf("restart: %w", err)
	}
	if err := s.connect(ctx, s.cluster.Endpoints()); err != nil {
		return got, err
	}
	if err := s.admin.whole(ctx, s.Nodes); err != nil {
		return got, err
	}
	got.restart = time.Since(began)
	return got, nil
}

// idle is what the servers use while nobody asks them anything.
func (s *stage) idle(ctx context.Context, d time.Duration) (cores float64, rss int64, err error) {
	before, err := s.cluster.Usage()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := rest(ctx, d); err != nil {
		return 0, 0, err
	}
	after, err := s.cluster.Usage()
	if err != nil {
		return 0, 0, err
	}
	used := after.Since(before)
	return used.CPU.Seconds() / time.Since(began).Seconds(), used.RSSBytes, nil
}

// costOf runs a workload and says how often it could be done, and what that cost.
func (s *stage) costOf(ctx context.Context, name string, clients int) (Cost, error) {
	found, err := load.Named([]string{name})
	if err != nil {
		return Cost{}, err
	}
	var began, ended peer.Usage
	got, err := load.Run(ctx, found[0], s.env, load.Plan{
		Clients: clients, WarmUp: s.Calm / 4, Duration: s.Calm,
		Begin: func() (err error) {
			began, err = s.cluster.Usage()
			return err
		},
		End: func() (err error) {
			ended, err = s.cluster.Usage()
			return err
		},
	})
	return Cost{
		Shards: s.Shards, Clients: clients, Workload: name, PerSecond: got.PerSecond,
		P50: float64(got.Latency.P50) / 1000, P99: float64(got.Latency.P99) / 1000,
		CPU: float64((ended.CPU - began.CPU).Microseconds()) / float64(max(1, got.Operations)), Errors: got.ErrorCount(),
	}, err
}

func (o *Outcome) tellScale(shards, nodes int, got, one scaled) {
	name := func(what string) string { return fmt.Sprintf("%d shards: %s", shards, what) }
	figures := []Figure{
		{Name: name("processes started until all shards are whole"), Value: got.start.Seconds(), Unit: "s"},
		{Name: name("stopped and started, until all are whole"), Value: got.restart.Seconds(), Unit: "s"},
		{Name: name("idle CPU, all nodes"), Value: got.idleCPU, Unit: "cores"},
		{Name: name("resident memory, all nodes"), Value: float64(got.rss) / (1 << 20), Unit: "MiB"},
		{Name: name("all shards as the Admin service tells them"), Value: float64(got.table) / 1024, Unit: "KiB"},
		{Name: name("plan of the balancer, with asking all nodes"), Value: millis(got.plan), Unit: "ms"},
	}
	for _, cost := range got.costs {
		if on, known := one.costOf(cost.Workload, cost.Clients); known && on.PerSecond > 0 {
			cost.OfOne = cost.PerSecond / on.PerSecond
		}
		if cost.Workload == "put" && cost.Clients == boundClients {
			figures = append(figures, Figure{Name: name("puts of 1,000 clients, of those on one shard"), Value: 100 * cost.OfOne, Unit: "%"})
		}
		o.Costs = append(o.Costs, cost)
	}
	if more := shards - 1; more > 0 {
		perReplica := float64(got.rss-one.rss) / float64(more*min(nodes, replicationFactor))
		figures = append(figures, Figure{Name: name("resident memory, each replica"), Value: perReplica / 1024, Unit: "KiB"})
	}
	for i := range figures {
		figures[i].Bound = scaleBounds()[figures[i].Name]
	}
	o.Figures = append(o.Figures, figures...)
}

// boundClients is the number of clients for which bounds were set.
const boundClients = 1000

// scaleBounds are what was set out for 256 and for 1,024 shards.
func scaleBounds() map[string]*Bound {
	return map[string]*Bound{
		"256 shards: puts of 1,000 clients, of those on one shard":  atLeast(50),
		"1024 shards: puts of 1,000 clients, of those on one shard": {Must: 0, Goal: 80, AtLeast: true},
		"1024 shards: idle CPU, all nodes":                          atMost(0.3, 0.05),
	}
}
