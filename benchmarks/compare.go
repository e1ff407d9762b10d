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

// compareFlags are the flags that are not fields of compare.Config as they are.
type compareFlags struct {
	a, b           string
	shards         []int
	workloads      []string
	rate           int
	grown          []int // numbers of keys; none: as many as the configuration says
	out            string
	flotilla, etcd string
}

func compareCommand() *cobra.Command {
	var f compareFlags
	var c compare.Config
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Run the same load against two systems in alternating rounds",
		Long:  "Run the same load against two systems in alternating rounds.\n\nWorkloads:\n" + workloadList(),
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runCompare(cmd, f, c) },
	}
	f.register(cmd.Flags(), &c, []string{"put", "get", "mixed", "list-100", "list-1000", "txn", "put1"})
	cmd.Flags().IntVar(&c.Keys, "keys", 20_000, keysUsage)
	cmd.Flags().IntVar(&f.rate, "rate", 0, "operations a second that begin at fixed times, whatever the servers do (default: as many as are answered)")
	return cmd
}

const keysUsage = "keys that put writes and get reads"

// register adds the flags of commands that compare.
func (f *compareFlags) register(flags *pflag.FlagSet, c *compare.Config, workloads []string) {
	flags.StringVar(&f.a, "a", "etcd", "first system, the one ratios refer to: etcd or flotilla, or with a binary of its own flotilla=PATH")
	flags.StringVar(&f.b, "b", "flotilla", "second system")
	flags.IntSliceVar(&f.shards, "shards", []int{1, 8}, "numbers of shards to run Flotilla with")
	flags.StringSliceVar(&f.workloads, "workloads", workloads, "what to run, in this order; list, watch, lease and ycsb are all of that kind")
	flags.IntVar(&c.Rounds, "rounds", 3, "rounds; their order alternates")
	flags.DurationVar(&c.Duration, "duration", 10*time.Second, "measured time of each workload in each round")
	flags.DurationVar(&c.WarmUp, "warm-up", 2*time.Second, "time before it that does not count")
	flags.IntVar(&c.Nodes, "nodes", 3, "server processes of each system")
	flags.IntVar(&c.Clients, "clients", 1000, "clients, each with one request at a time")
	flags.IntVar(&c.Conns, "conns", 100, "connections that the clients share")
	flags.IntVar(&c.ValueBytes, "value", 256, "bytes of each value")
	flags.IntVar(&c.WatchRate, "watch-rate", 200, "puts a second that watchers are sent; fewer where many watch")
	flags.IntVar(&c.IdleWatchers, "idle-watchers", 10_000, "watchers that watch-idle opens")
	flags.IntVar(&c.CatchUp, "catch-up", 100_000, "events that watch-catchup is behind")
	flags.IntVar(&c.Leases, "leases", 10_000, "leases that lease-keepalive renews")
	flags.Uint64Var(&c.Seed, "seed", 1, "seed of all randomness")
	flags.DurationVar(&c.Fsyncs.Delay, "fsync-delay", 0, fsyncDelayUsage)
	flags.StringVar(&c.Dir, "dir", os.TempDir(), "where data directories are made; use the disk that is to be measured")
	flags.StringVar(&f.out, "out", "", "also write results.json and results.md to this folder")
	flags.StringVar(&f.flotilla, "flotilla", "", "binary of Flotilla (default: build it)")
	flags.StringVar(&f.etcd, "etcd", "", "binary of etcd "+peer.EtcdVersion+" (default: build it)")
}

func workloadList() string {
	var b strings.Builder
	for _, w := range load.Workloads() {
		fmt.Fprintf(&b, "  %-18s%s\n", w.Name(), w.About())
	}
	return b.String()
}

func runCompare(cmd *cobra.Command, f compareFlags, c compare.Config) error {
	if f.rate > 0 {
		c.Rates = make(map[string]int)
		for _, name := range f.workloads {
			c.Rates[name] = f.rate
		}
	}
	return f.measure(cmd, c, func(ctx context.Context, c compare.Config, log *slog.Logger, _ *report.Report, done func(compare.Measurement)) error {
		return compare.Run(ctx, c, log, done)
	})
}

func rateCommand() *cobra.Command {
	var f compareFlags
	var c compare.Config
	var share float64
	cmd := &cobra.Command{
		Use:   "rate",
		Short: "Compare latencies at the same load: a share of what the first system can do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.measure(cmd, c, func(ctx context.Context, c compare.Config, log *slog.Logger, r *report.Report, done func(compare.Measurement)) (err error) {
				r.Peaks, err = compare.AtShare(ctx, c, share, log, done)
				return err
			})
		},
	}
	f.register(cmd.Flags(), &c, []string{"put", "get", "txn"})
	cmd.Flags().IntVar(&c.Keys, "keys", 20_000, keysUsage)
	cmd.Flags().Float64Var(&share, "share", 0.75, "share of the first system's peak")
	return cmd
}

func growCommand() *cobra.Command {
	var f compareFlags
	var c compare.Config
	var sizes []int
	cmd := &cobra.Command{
		Use:   "grow",
		Short: "Run the same load against two systems while there are ever more keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.grown = sizes
			return f.measure(cmd, c, func(ctx context.Context, c compare.Config, log *slog.Logger, _ *report.Report, done func(compare.Measurement)) error {
				return compare.Run(ctx, c, log, done)
			})
		},
	}
	f.register(cmd.Flags(), &c, []string{"put", "get"})
	cmd.Flags().IntSliceVar(&sizes, "keys", []int{1_000_000, 10_000_000}, "numbers of keys, ascending; each has --value bytes")
	return cmd
}

// comparison runs what a configuration says; it may add to the report what is not a
// measurement.
type comparison func(context.Context, compare.Config, *slog.Logger, *report.Report, func(compare.Measurement)) error

// measure has a comparison run and tells what came of it.
func (f compareFlags) measure(cmd *cobra.Command, c compare.Config, run comparison) error {
	ctx := cmd.Context()
	var err error
	if c.Workloads, err = load.Named(f.workloads); err != nil {
		return err
	}
	if len(f.grown) > 0 {
		if c.Workloads, err = load.Grown(c.Workloads, f.grown); err != nil {
			return err
		}
		c.Keys = f.grown[0]
	}
	if c.Systems, err = compare.Systems(f.a, f.b, map[string]string{"etcd": f.etcd, "flotilla": f.flotilla}, f.shards); err != nil {
		return err
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return fmt.Errorf("find the data directory: %w", err)
	}
	if c.Fsyncs.Holder, err = ourselves(holdFsyncs); err != nil {
		return err
	}
	r := newReport(ctx, c.Dir, ready(c.Systems)...)
	r.Peers = make(map[string]string)
	for _, s := range c.Systems {
		if e, is := s.Kind.(peer.Etcd); is {
			r.Peers[s.Label] = cmp.Or(e.Path, peer.EtcdVersion) // a binary may be any version
		}
	}
	p := begin(cmd, cmd.Name(), len(c.Workloads)*len(c.Systems)*c.Rounds)
	p.log.Info("measure", "commit", r.Commit, "machine", r.Machine.String())
	runErr := run(ctx, c, p.log, &r, func(m compare.Measurement) {
		r.Measurements = append(r.Measurements, m)
		p.part()
	})
	p.end()
	if len(r.Measurements) == 0 {
		return runErr
	}
	// What was measured before something failed is still shown.
	r.Rows = report.Summarize(r.Measurements, names(c.Workloads, load.Workload.Name), names(c.Systems, func(s compare.System) string { return s.Label }))
	fmt.Fprint(cmd.OutOrStdout(), r.Text())
	if runErr == nil && f.out != "" {
		runErr = r.Write(f.out)
	}
	return runErr
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
