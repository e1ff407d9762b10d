package compare

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/peer"
)

// Config configures a comparison.
type Config struct {
	Systems   []System
	Workloads []load.Workload
	Rounds    int
	Nodes     int
	Clients   int
	Conns     int
	WarmUp    time.Duration
	Duration  time.Duration
	Seed      uint64
	// Rates has for workloads, by name, how many operations start per second; in the others clients
	// start one when the last is answered.
	Rates map[string]int
	load.Sizes
	// Fsyncs slows the disk down, for all systems.
	Fsyncs peer.SlowFsyncs
	// Dir holds the data directories while they are needed.
	Dir string
}

// Validate reports what cannot be measured, and what to change.
func (c Config) Validate() error {
	switch {
	case len(c.Systems) == 0 || len(c.Workloads) == 0:
		return errors.New("nothing to measure: name at least one system and one workload")
	case c.Rounds < 1 || c.Nodes < 1 || c.Clients < 1 || c.Conns < 1:
		return errors.New("rounds, nodes, clients and conns must be at least 1")
	case c.Duration <= 0 || c.WarmUp < 0:
		return errors.New("duration must be positive and warm-up not negative")
	}
	return nil
}

// ready is nil if everything can begin. What has no binary would otherwise end a run whose
// first systems have taken minutes.
func (c Config) ready(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	for _, s := range c.Systems {
		if _, err := s.Kind.Binary(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.Label, err)
		}
	}
	return nil
}

// Measurement is one workload in one round of one system.
type Measurement struct {
	System   string `json:"system"`
	Workload string `json:"workload"`
	Round    int    `json:"round"`
	Clients  int    `json:"clients"`
	Rate     int    `json:"rate,omitempty"` // at which operations began; 0: none was set
	load.Result
	// Servers is what all server processes used in the window together.
	Servers Cost `json:"servers"`
	// ClientCPUPerOp is the cost of the load itself, in microseconds.
	ClientCPUPerOp float64 `json:"client_cpu_us_per_op"`
	// OtherCPU is the share of the machine, 0 to 1, that went to neither servers nor load,
	// including steal by the hypervisor. Above a few percent, something else was measured too.
	OtherCPU float64 `json:"other_cpu"`
}

// Cost is the cost of operations on the machine.
type Cost struct {
	CPUPerOp          float64 `json:"cpu_us_per_op"`
	RSSBytes          int64   `json:"rss_bytes"`
	WrittenBytesPerOp float64 `json:"written_bytes_per_op"`
	// FsyncsPerOp is nil where the servers do not count them.
	FsyncsPerOp *float64 `json:"fsyncs_per_op,omitempty"`
	// RSSPerHeld is by how many bytes memory grew per watcher or lease that was added; nil where
	// there are none.
	RSSPerHeld *float64 `json:"rss_bytes_per_held,omitempty"`
}

// Run measures everything and passes each measurement to done as it arrives.
func Run(ctx context.Context, c Config, log *slog.Logger, done func(Measurement)) error {
	if err := c.ready(ctx); err != nil {
		return err
	}
	for round := range c.Rounds {
		for _, s := range order(c.Systems, round) {
			log.Info("start", "round", round+1, "of", c.Rounds, "system", s.Label, "nodes", c.Nodes)
			if err := runSystem(ctx, c, s, round, log, done); err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, s.Label, err)
			}
		}
	}
	return nil
}

// runSystem starts one system, runs all workloads on it, and removes it (M1, M2).
func runSystem(ctx context.Context, c Config, s System, round int, log *slog.Logger, done func(Measurement)) (err error) {
	dir, err := os.MkdirTemp(c.Dir, "round-")
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cluster, err := peer.Start(ctx, s.Kind, peer.Options{Nodes: c.Nodes, Dir: filepath.Clean(dir), Shards: s.Shards, Fsyncs: c.Fsyncs})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	conns, err := load.Connect(ctx, cluster.Endpoints(), c.Conns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, load.Disconnect(conns)) }()
	env, err := load.NewEnv(conns, c.Sizes, c.Seed)
	if err != nil {
		return err
	}
	_, env.Native = s.Kind.(peer.Flotilla)
	for _, w := range c.Workloads {
		log.Info("measure", "system", s.Label, "workload", w.Name())
		m, err := measure(ctx, c, w, env, cluster)
		if err != nil {
			return err
		}
		m.System, m.Workload, m.Round = s.Label, w.Name(), round+1
		log.Info("measured", "system", s.Label, "workload", w.Name(),
			"per_second", int(m.PerSecond), "p50_us", m.Latency.P50, "p99_us", m.Latency.P99, "errors", m.ErrorCount())
		done(m)
	}
	return nil
}

func measure(ctx context.Context, c Config, w load.Workload, env *load.Env, cluster *peer.Cluster) (Measurement, error) {
	var start, end counters
	result, err := load.Run(ctx, w, env, load.Plan{
		Clients: c.Clients, WarmUp: c.WarmUp, Duration: c.Duration, Rate: c.Rates[w.Name()],
		Begin: func() (err error) {
			start, err = readCounters(ctx, cluster)
			return err
		},
		End: func() (err error) {
			end, err = readCounters(ctx, cluster)
			return err
		},
	})
	if err != nil {
		return Measurement{}, err
	}
	return costed(Measurement{Clients: w.Clients(c.Clients), Rate: c.Rates[w.Name()], Result: result}, start, end), nil
}

// counters is what is read at both ends of the window.
type counters struct {
	servers   peer.Usage
	clientCPU time.Duration
	machine   peer.MachineTime
	fsyncs    float64
	hasFsyncs bool
}

func readCounters(ctx context.Context, cluster *peer.Cluster) (counters, error) {
	var c counters
	var err error
	if c.clientCPU, err = peer.OwnCPU(); err != nil {
		return c, err
	}
	if c.servers, err = cluster.Usage(); err != nil {
		return c, err
	}
	if c.machine, err = peer.ReadMachineTime(); err != nil {
		return c, err
	}
	c.fsyncs, c.hasFsyncs = cluster.Fsyncs(ctx)
	return c, nil
}

// costed divides what was used between two marks by the operations.
func costed(m Measurement, start, end counters) Measurement {
	perOp := func(v float64) float64 {
		if m.Operations == 0 {
			return 0
		}
		return v / float64(m.Operations)
	}
	used := end.servers.Since(start.servers)
	m.Servers = Cost{
		CPUPerOp:          perOp(float64(used.CPU.Microseconds())),
		RSSBytes:          used.RSSBytes,
		WrittenBytesPerOp: perOp(float64(used.WrittenBytes)),
	}
	if start.hasFsyncs && end.hasFsyncs {
		fsyncs := perOp(end.fsyncs - start.fsyncs)
		m.Servers.FsyncsPerOp = &fsyncs
	}
	if m.Held > 0 {
		grown := float64(end.servers.RSSBytes-start.servers.RSSBytes) / float64(m.Held)
		m.Servers.RSSPerHeld = &grown
	}
	client := end.clientCPU - start.clientCPU
	m.ClientCPUPerOp = perOp(float64(client.Microseconds()))
	if all := end.machine.All - start.machine.All; all > 0 {
		other := end.machine.Busy - start.machine.Busy - used.CPU - client
		m.OtherCPU = max(0, float64(other)/float64(all)) // the clocks are not the same one
	}
	return m
}
