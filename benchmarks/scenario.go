package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-kv/flotilla/benchmarks/scenario"
)

// scenarioFlags are the flags that all scenarios have.
type scenarioFlags struct {
	scenario.Config
	out string
}

// register adds them, with what the scenario has for defaults; what is 0 it decides itself.
func (f *scenarioFlags) register(flags *pflag.FlagSet, d scenario.Config) {
	flags.IntVar(&f.Nodes, "nodes", d.Nodes, "server processes")
	if d.Shards > 0 {
		flags.IntVar(&f.Shards, "shards", d.Shards, "ranges that the keyspace is cut into at the start")
	}
	if d.Rate > 0 {
		flags.IntVar(&f.Rate, "rate", d.Rate, "puts a second")
	}
	if d.Calm > 0 {
		flags.DurationVar(&f.Calm, "calm", d.Calm, "time before, between and after what happens")
	}
	flags.IntVar(&f.Conns, "conns", 32, "connections, spread over the nodes")
	flags.IntVar(&f.Keys, "keys", d.Keys, "keys that are put")
	flags.IntVar(&f.ValueBytes, "value", cmp.Or(d.ValueBytes, 256), "bytes of each value")
	flags.Uint64Var(&f.Seed, "seed", 1, "seed of all randomness")
	flags.DurationVar(&f.Fsyncs.Delay, "fsync-delay", 0, fsyncDelayUsage)
	flags.StringVar(&f.Dir, "dir", os.TempDir(), "where data directories are made; use the disk that is to be measured")
	flags.StringVar(&f.out, "out", "", "also write results.json, results.md and charts to this folder")
	flags.StringVar(&f.Binary, "flotilla", "", "binary of Flotilla (default: build it)")
}

// run plays a scenario and tells what came of it.
func (f scenarioFlags) run(cmd *cobra.Command, play func(context.Context, scenario.Config) (scenario.Outcome, error)) error {
	defer collectRarely()()
	ctx := cmd.Context()
	var err error
	if f.Dir, err = filepath.Abs(f.Dir); err != nil {
		return fmt.Errorf("find the data directory: %w", err)
	}
	if f.Fsyncs.Holder, err = ourselves(holdFsyncs); err != nil {
		return err
	}
	var ready []string
	if f.Binary != "" {
		ready = append(ready, f.Binary)
	}
	r, err := newReport(ctx, f.Dir, ready...)
	if err != nil {
		return err
	}
	p := begin(cmd, cmd.Name(), 0)
	f.Log = p.log
	p.log.Info("measure", "commit", r.Commit, "machine", r.Machine.String())
	outcome, runErr := play(ctx, f.Config)
	p.end()
	if len(outcome.Figures) == 0 {
		return runErr
	}
	r.Outcomes = []scenario.Outcome{outcome}
	fmt.Fprint(cmd.OutOrStdout(), r.Text())
	if f.out != "" {
		runErr = errors.Join(runErr, r.Write(f.out))
	}
	return runErr
}

// command is a scenario's, with its defaults; what a scenario has besides, the caller adds.
func (f *scenarioFlags) command(name, short string, d scenario.Config, play func(context.Context, scenario.Config) (scenario.Outcome, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, play) },
	}
	f.register(cmd.Flags(), d)
	return cmd
}

func reshapeCommand() *cobra.Command {
	var f scenarioFlags
	var splits int
	cmd := f.command("reshape", "Split, merge, move, transfer and drain under load: what do clients notice?",
		scenario.Config{Nodes: 4, Shards: 8, Rate: 5000, Calm: 8 * time.Second, Keys: 20_000},
		func(ctx context.Context, c scenario.Config) (scenario.Outcome, error) {
			return scenario.Reshape(ctx, c, splits)
		})
	cmd.Flags().IntVar(&splits, "splits", 10, "how many shards are split, and merged again")
	return cmd
}

func lossCommand() *cobra.Command {
	var f scenarioFlags
	var grace time.Duration
	cmd := f.command("loss", "Kill a node for good: how long until all shards have three replicas again?",
		scenario.Config{Nodes: 4, Shards: 16, Rate: 2000, Calm: 10 * time.Second, Keys: 100_000, ValueBytes: 1024},
		func(ctx context.Context, c scenario.Config) (scenario.Outcome, error) {
			return scenario.Loss(ctx, c, grace)
		})
	cmd.Flags().DurationVar(&grace, "grace", 10*time.Second, "silence after which a node counts as dead (setting dead-after)")
	return cmd
}

func shiftCommand() *cobra.Command {
	var f scenarioFlags
	var s scenario.Shifting
	var balancer string
	cmd := f.command("shift", "Put mostly neighbouring keys, from time to time others: what does the balancer do about it?",
		scenario.Config{Nodes: 5, Shards: 5, Rate: 3000, Keys: 20_000},
		func(ctx context.Context, c scenario.Config) (scenario.Outcome, error) {
			s.On, s.Off = balancer != "off", balancer != "on"
			if balancer != "both" && s.On && s.Off {
				return scenario.Outcome{}, fmt.Errorf("--balancer %s: want on, off or both", balancer)
			}
			return scenario.Shift(ctx, c, s)
		})
	cmd.Flags().DurationVar(&s.Every, "every", time.Minute, "how long the hot range stays where it is")
	cmd.Flags().IntVar(&s.Times, "times", 3, "at how many places it is")
	cmd.Flags().IntVar(&s.SplitWrites, "split-writes", 500, "writes a second from which on a shard is split (setting split-writes)")
	cmd.Flags().StringVar(&balancer, "balancer", "both", "on, off or both, one after the other")
	return cmd
}

func scaleCommand() *cobra.Command {
	var f scenarioFlags
	var s scenario.Scaling
	cmd := f.command("scale", "Start ever more shards: what does each cost, and what do requests of few and many clients?",
		scenario.Config{Nodes: 3, Keys: 20_000},
		func(ctx context.Context, c scenario.Config) (scenario.Outcome, error) {
			return scenario.Scale(ctx, c, s)
		})
	cmd.Flags().IntSliceVar(&s.Shards, "shards", []int{8, 64, 256, 1024}, "numbers of shards, beside 1")
	cmd.Flags().IntSliceVar(&s.Clients, "clients", []int{1, 64, 1000, 10_000}, "numbers of clients, each with one request at a time")
	cmd.Flags().DurationVar(&f.Calm, "duration", 6*time.Second, "measured time of puts and of gets, for each number of clients")
	cmd.Flags().DurationVar(&s.Idle, "idle", 10*time.Second, "how long nothing is asked, to see what that costs")
	return cmd
}

func overloadCommand() *cobra.Command {
	var f scenarioFlags
	var o scenario.Overloading
	cmd := f.command("overload", "Ask for more than the cluster can do: what is left, and how does it come back?",
		scenario.Config{Nodes: 3, Shards: 8, Calm: 10 * time.Second, Keys: 20_000},
		func(ctx context.Context, c scenario.Config) (_ scenario.Outcome, err error) {
			if o.Renewer, err = ourselves(renewLeases); err != nil {
				return scenario.Outcome{}, err
			}
			return scenario.Overload(ctx, c, o)
		})
	cmd.Flags().Float64Var(&o.Factor, "factor", 3, "how many times what the cluster can do is asked for")
	cmd.Flags().DurationVar(&o.For, "for", time.Minute, "how long it is asked for")
	cmd.Flags().IntVar(&o.Clients, "clients", 10_000, "clients that ask for it, each with one put at a time")
	cmd.Flags().IntVar(&o.Finders, "finders", 1000, "clients that find out what the cluster can do")
	cmd.Flags().StringVar(&f.CPUs, "servers-on", "", "processors that the servers may use, as taskset takes them; start this program with taskset on the others (default: all share all)")
	return cmd
}
