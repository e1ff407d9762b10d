package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-kv/flotilla/benchmarks/compare"
	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/peer"
	"github.com/flotilla-kv/flotilla/benchmarks/report"
)

// compareFlags are the flags of commands that compare.
type compareFlags struct {
	compare.Config
	a, b           string
	shards         []int
	workloads      []string
	grown          []int // numbers of keys; none: as many as the configuration says
	out            string
	flotilla, etcd string
}

// usual is what commands that compare have for defaults.
func usual() compare.Config {
	return compare.Config{
		Rounds: 3, Nodes: 3, Clients: 1000, Conns: 100, WarmUp: 2 * time.Second, Duration: 10 * time.Second, Seed: 1,
		Sizes: load.Sizes{Keys: 20_000, ValueBytes: 256, WatchRate: 200, IdleWatchers: 10_000, CatchUp: 100_000, Leases: 10_000},
	}
}

// register adds the flags, with defaults. --keys is not among them: it is one number or several.
func (f *compareFlags) register(flags *pflag.FlagSet, workloads []string, d compare.Config) {
	flags.StringVar(&f.a, "a", "etcd", "first system, the one ratios refer to: etcd or flotilla, or with a binary of its own flotilla=PATH")
	flags.StringVar(&f.b, "b", "flotilla", "second system")
	flags.IntSliceVar(&f.shards, "shards", []int{1, 8}, "numbers of shards to run Flotilla with")
	flags.StringSliceVar(&f.workloads, "workloads", workloads, "what to run, in this order; "+strings.Join(load.Families(), ", ")+" are all of that kind")
	flags.IntVar(&f.Rounds, "rounds", d.Rounds, "rounds; their order alternates")
	flags.DurationVar(&f.Duration, "duration", d.Duration, "measured time of each workload in each round")
	flags.DurationVar(&f.WarmUp, "warm-up", d.WarmUp, "time before it that does not count")
	flags.IntVar(&f.Nodes, "nodes", d.Nodes, "server processes of each system")
	flags.IntVar(&f.Clients, "clients", d.Clients, "clients, each with one request at a time")
	flags.IntVar(&f.Conns, "conns", d.Conns, "connections that the clients share")
	flags.IntVar(&f.ValueBytes, "value", d.ValueBytes, "bytes of each value")
	flags.IntVar(&f.WatchRate, "watch-rate", d.WatchRate, "puts a second that watchers are sent; fewer where many watch")
	flags.IntVar(&f.IdleWatchers, "idle-watchers", d.IdleWatchers, "watchers that watch-idle opens")
	flags.IntVar(&f.CatchUp, "catch-up", d.CatchUp, "events that watch-catchup is behind")
	flags.IntVar(&f.Leases, "leases", d.Leases, "leases that lease-keepalive renews")
	flags.Uint64Var(&f.Seed, "seed", d.Seed, "seed of all randomness")
	flags.DurationVar(&f.Fsyncs.Delay, "fsync-delay", 0, fsyncDelayUsage)
	flags.StringVar(&f.Dir, "dir", os.TempDir(), "where data directories are made; use the disk that is to be measured")
	flags.StringVar(&f.out, "out", "", "also write results.json, results.md and charts to this folder")
	flags.StringVar(&f.flotilla, "flotilla", "", "binary of Flotilla (default: build it)")
	flags.StringVar(&f.etcd, "etcd", "", "binary of etcd "+peer.EtcdVersion+" (default: build it)")
}

func (f *compareFlags) registerKeys(flags *pflag.FlagSet, d compare.Config) {
	flags.IntVar(&f.Keys, "keys", d.Keys, "keys that put writes and get reads")
}

func compareCommand() *cobra.Command {
	var f compareFlags
	var rate int
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Run the same load against two systems in alternating rounds",
		Long:  "Run the same load against two systems in alternating rounds.\n\nWorkloads:\n" + workloadList(),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rate > 0 {
				f.Rates = make(map[string]int)
				for _, name := range f.workloads {
					f.Rates[name] = rate
				}
			}
			_, err := f.measure(cmd, plainly)
			return err
		},
	}
	f.register(cmd.Flags(), []string{"put", "get", "mixed", "list-100", "list-1000", "txn", "put1"}, usual())
	f.registerKeys(cmd.Flags(), usual())
	cmd.Flags().IntVar(&rate, "rate", 0, "operations a second that begin at fixed times, whatever the servers do (default: as many as are answered)")
	return cmd
}

func workloadList() string {
	var b strings.Builder
	for _, w := range load.Workloads() {
		fmt.Fprintf(&b, "  %-18s%s\n", w.Name(), w.About())
	}
	return b.String()
}

// comparison runs what a configuration says; it may add to the report what is not a
// measurement.
type comparison func(context.Context, compare.Config, *slog.Logger, *report.Report, func(compare.Measurement)) error

func plainly(ctx context.Context, c compare.Config, log *slog.Logger, _ *report.Report, done func(compare.Measurement)) error {
	return compare.Run(ctx, c, log, done)
}

// config is what the flags say.
func (f compareFlags) config() (c compare.Config, err error) {
	c = f.Config
	if c.Workloads, err = load.Named(f.workloads); err != nil {
		return c, err
	}
	if len(f.grown) > 0 {
		if c.Workloads, err = load.Grown(c.Workloads, f.grown); err != nil {
			return c, err
		}
		c.Keys = f.grown[0]
	}
	if c.Systems, err = compare.Systems(f.a, f.b, map[string]string{"etcd": f.etcd, "flotilla": f.flotilla}, f.shards); err != nil {
		return c, err
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return c, fmt.Errorf("find the data directory: %w", err)
	}
	c.Fsyncs.Holder, err = ourselves(holdFsyncs)
	return c, err
}

// measure has a comparison run, and shows and keeps what came of it. What was measured before
// something failed is still shown.
func (f compareFlags) measure(cmd *cobra.Command, run comparison) (report.Report, error) {
	defer collectRarely()()
	ctx := cmd.Context()
	c, err := f.config()
	if err != nil {
		return report.Report{}, err
	}
	r, err := newReport(ctx, c.Dir, ready(c.Systems)...)
	if err != nil {
		return r, err
	}
	r.Peers = make(map[string]string)
	for _, s := range c.Systems {
		if e, is := s.Kind.(peer.Etcd); is {
			r.Peers[s.Label] = cmp.Or(e.Path, peer.EtcdVersion) // a binary may be any version
		}
	}
	p := begin(cmd, cmd.Name(), len(c.Workloads)*len(c.Systems)*c.Rounds)
	p.log.Info("measure", "commit", r.Commit, "machine", r.Machine.String())
	err = run(ctx, c, p.log, &r, func(m compare.Measurement) {
		r.Measurements = append(r.Measurements, m)
		p.part()
	})
	p.end()
	if len(r.Measurements) == 0 {
		return r, err
	}
	r.Rows = report.Summarize(r.Measurements, names(c.Workloads, load.Workload.Name), names(c.Systems, func(s compare.System) string { return s.Label }))
	fmt.Fprint(cmd.OutOrStdout(), r.Text())
	if err == nil && f.out != "" {
		err = r.Write(f.out)
	}
	return r, err
}

// ready are the binaries of Flotilla that are not built from this checkout.
func ready(systems []compare.System) (paths []string) {
	for _, s := range systems {
		if f, is := s.Kind.(peer.Flotilla); is && f.Path != "" && !slices.Contains(paths, f.Path) {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

func names[T any](all []T, name func(T) string) (out []string) {
	for _, v := range all {
		out = append(out, name(v))
	}
	return out
}
