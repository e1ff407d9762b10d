package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// Scaling says what numbers of shards are compared.
type Scaling struct {
	Shards []int
	// Clients put and get, each one request at a time.
	Clients int
	// Idle is for how long nothing is asked, to see what that costs.
	Idle time.Duration
}

// Scale starts clusters of ever more shards, and tells what each shard costs. A cluster of
// one is always measured first, to compare with.
func Scale(ctx context.Context, c Config, sc Scaling) (Outcome, error) {
	out := Outcome{Name: "scale"}
	if len(sc.Shards) == 0 || sc.Clients < 1 || sc.Idle < time.Second {
		return out, errors.New("name at least one number of shards and one client, and be idle for at least a second")
	}
	var one scaled
	for i, shards := range append([]int{1}, sc.Shards...) {
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
	rates, cpu     map[string]float64 // of put and get: a second, and µs of servers each
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
	got.rates, got.cpu = make(map[string]float64), make(map[string]float64)
	for _, name := range []string{"put", "get"} {
		if got.rates[name], got.cpu[name], err = s.rateOf(ctx, name, sc.Clients); err != nil {
			return got, err
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
	if err := s.rest(ctx, d); err != nil {
		return 0, 0, err
	}
	after, err := s.cluster.Usage()
	if err != nil {
		return 0, 0, err
	}
	used := after.Since(before)
	return used.CPU.Seconds() / time.Since(began).Seconds(), used.RSSBytes, nil
}

// rateOf runs a workload and says how often it could be done, and what that cost.
func (s *stage) rateOf(ctx context.Context, name string, clients int) (perSecond, cpu float64, err error) {
	found, err := load.Named([]string{name})
	if err != nil {
		return 0, 0, err
	}
	var used [2]time.Duration
	got, err := load.Run(ctx, found[0], s.env, load.Plan{
		Clients: clients, WarmUp: time.Second, Duration: s.Calm,
		Mark: func(end bool) error {
			i := 0
			if end {
				i = 1
			}
			u, err := s.cluster.Usage()
			used[i] = u.CPU
			return err
		},
	})
	if err != nil {
		return 0, 0, err
	}
	return got.PerSecond, float64((used[1] - used[0]).Microseconds()) / float64(max(1, got.Operations)), nil
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
		{Name: name("puts"), Value: got.rates["put"], Unit: "/s"},
		{Name: name("puts, of those on one shard"), Value: 100 * got.rates["put"] / one.rates["put"], Unit: "%"},
		{Name: name("server CPU of a put"), Value: got.cpu["put"], Unit: "µs"},
		{Name: name("gets"), Value: got.rates["get"], Unit: "/s"},
		{Name: name("server CPU of a get"), Value: got.cpu["get"], Unit: "µs"},
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

// scaleBounds are what was set out for 256 and for 1,024 shards.
func scaleBounds() map[string]*Bound {
	return map[string]*Bound{
		"256 shards: puts, of those on one shard":  atLeast(50),
		"1024 shards: puts, of those on one shard": {Must: 0, Goal: 80, AtLeast: true},
		"1024 shards: idle CPU, all nodes":         atMost(0.3, 0.05),
	}
}
