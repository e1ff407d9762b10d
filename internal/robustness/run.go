package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/internal/history"
)

// Config is one run.
type Config struct {
	Seed int64
	// Duration is how long the load lasts; recovery and read-back come on top.
	Duration time.Duration
	Workload Workload
	Nemesis  Nemesis
	// ShardOf names the shard of a key for history.Check; nil when shards may change.
	ShardOf func(key string) string
	// Native makes every third client a client of Flotilla's own (client/etcd).
	Native bool
	// PromptProgress and LateBy are for history.Check.
	PromptProgress bool
	LateBy         time.Duration
	// HandOn makes leadership of all shards pass from node to node while the run waits for leases to end: that must
	// not prolong their lives.
	HandOn bool
	// Patience bounds recovery and read-back together, after the faults are healed.
	// Default 30 s.
	Patience time.Duration
}

const patienceDefault = 30 * time.Second

const (
	// lateByDefault is two election timeouts, and the same again for a machine that is busy with other things.
	lateByDefault = 4 * time.Second
	// handOnPause is the time between two rounds in which leadership passes to another node.
	handOnPause = 200 * time.Millisecond
)

// DefaultConfig is the run that every change has to pass. A longer run uses more keys, because the cost of the checks
// grows much faster than the history of a key.
func DefaultConfig(seed int64, duration time.Duration) Config {
	load := DefaultWorkload()
	if n := int(duration / (8 * time.Second)); n > 1 {
		load.Keys = newKeyspace(n*len(load.Keys.Singles), n*len(load.Keys.Groups), n*len(load.Keys.Leased))
	}
	return Config{Seed: seed, Duration: duration, Workload: load, Nemesis: DefaultNemesis(), LateBy: lateByDefault}
}

// Result is what a run found.
type Result struct {
	Report  history.Report
	History history.History
	// Attacks are the faults that were planned.
	Attacks []Attack
	// Changes is how many changes of the layout were made, or only begun if nobody waits for them.
	Changes int
	// Observed is what nodes reported about their maps during the whole run.
	Observed Observed
	// Problems are crashes, invalid maps, and what could not be read at the end (B4).
	Problems []string
	// LongestPause is the longest time in which no write was acknowledged.
	LongestPause time.Duration
}

// Clean reports whether nothing was found.
func (r Result) Clean() bool { return r.Report.Clean() && len(r.Problems) == 0 }

func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %d changes of the layout; %d splits and %d merges in %d maps; leaders lost %d times; longest time without an acknowledged write %s",
		r.Report, r.Changes, r.Observed.Splits, r.Observed.Merges, r.Observed.Maps, len(r.Observed.Elected), r.LongestPause.Round(time.Millisecond))
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "\n  seed %d: %s", r.Report.Seed, p)
	}
	if !r.Clean() {
		for _, a := range r.Attacks {
			fmt.Fprintf(&b, "\n  attack %s", a)
		}
	}
	return b.String()
}

// Run puts a system that is ready and empty under load and faults, lets it recover, and judges what its clients were
// told. An error means that there is no verdict.
func Run(ctx context.Context, sys System, cfg Config) (Result, error) {
	nodes := len(sys.Endpoints())
	names := sys.Endpoints()
	conns, err := connect(names, max(cfg.Workload.Clients, 2*nodes), cfg.Native)
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	rec := history.NewRecorder(func() time.Duration { return time.Since(began) })
	plan := cfg.Nemesis.Plan(rand.New(rand.NewPCG(uint64(cfg.Seed), planStream)), nodes, cfg.Workload.Keys.Cuts(), cfg.Duration)

	loadCtx, stopLoad := context.WithTimeout(ctx, cfg.Duration)
	defer stopLoad()
	observing, stopObserving := context.WithCancel(ctx)
	defer stopObserving()
	observed := make(chan Observed, 1)
	go func() { observed <- sys.Observe(observing) }()
	res := Result{Attacks: plan}
	attacked := make(chan error, 1)
	go func() {
		var err error
		res.Changes, err = execute(loadCtx, sys, plan)
		attacked <- err
	}()
	drive(loadCtx, rec, conns, names, cfg.Seed, cfg.Workload)
	if err := <-attacked; err != nil {
		return Result{}, fmt.Errorf("seed %d: %w", cfg.Seed, err)
	}

	res.LongestPause = longestPause(rec.History().Ops)
	var asked, healed time.Duration
	res.Problems = settle(ctx, sys, rec, conns, cfg, func() { asked = time.Since(began) })
	if slices.ContainsFunc(plan, func(a Attack) bool { return a.Fault.stops() }) {
		healed = asked
	}
	stopObserving()
	res.Observed = <-observed
	res.Problems = append(res.Problems, res.Observed.Problems...)
	if err := conns.close(); err != nil {
		return Result{}, err
	}
	res.History = rec.History()
	res.Report = history.Check(res.History, history.Options{
		Seed: cfg.Seed, ShardOf: cfg.ShardOf, PromptProgress: cfg.PromptProgress, Asked: asked, Healed: healed, Elected: res.Observed.Elected, LateBy: cfg.LateBy, Timeout: max(30*time.Second, 2*cfg.Duration),
	})
	return res, nil
}

// planStream separates the nemesis's random numbers from those of the clients, which are numbered from 0.
const planStream = 1 << 32

// settle waits for the nodes, calls healed, reads everything back, and returns what went wrong.
func settle(ctx context.Context, sys System, rec *history.Recorder, conns connections, cfg Config, healed func()) []string {
	patience := cfg.Patience
	if patience == 0 {
		patience = patienceDefault
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var problems []string
	if err := sys.WaitReady(ctx); err != nil {
		problems = append(problems, fmt.Sprintf("the cluster did not recover: %v", err))
	} else {
		healed()
		f := &finish{rec: rec, nodes: conns.single(len(sys.Endpoints())), names: sys.Endpoints(), timeout: max(cfg.Workload.Timeout, finishTimeout)}
		if cfg.Workload.Lessees > 0 { // at once, or the history would not show how late they end
			// Leases that do not end must not prevent the rest from being read.
			some, cancel := context.WithTimeout(ctx, patience/3)
			var handing sync.WaitGroup
			if cfg.HandOn {
				handing.Go(func() { handOn(some, sys) })
			}
			problems = append(problems, f.awaitLeases(some)...)
			cancel()
			handing.Wait()
		}
		// Shards that do not settle must not prevent the rest from being read.
		some, cancel := context.WithTimeout(ctx, patience/2)
		if err := sys.Settle(some); err != nil {
			problems = append(problems, fmt.Sprintf("the shards did not settle: %v", err))
		}
		cancel()
		problems = append(problems, f.conclude(ctx, conns, cfg.Workload)...)
	}
	return append(problems, sys.Crashes()...)
}

// handOn makes one node after the other the leader of what it can lead, until the context ends.
func handOn(ctx context.Context, sys System) {
	for node := 0; wait(ctx, handOnPause) == nil; node = (node + 1) % len(sys.Endpoints()) {
		_ = sys.Transfer(ctx, node) // may be refused while another transfer is in progress
	}
}

// conclude requests everything that the verdict needs, once leases have ended and nothing changes any more.
func (f *finish) conclude(ctx context.Context, conns connections, load Workload) []string {
	var problems []string
	if load.Watchers > 0 {
		problems = append(problems, f.watchAll(ctx)...)
	}
	return append(problems, readBack(ctx, f.rec, conns, len(f.names), load.Keys.All(), load.Timeout)...)
}

// longestPause is the longest time between two acknowledged writes.
func longestPause(ops []history.Op) time.Duration {
	var acked []time.Duration
	for _, op := range ops {
		if op.Outcome == history.OK && op.Request.Read == nil {
			acked = append(acked, op.Return)
		}
	}
	return widestGap(acked)
}

func widestGap(times []time.Duration) time.Duration {
	slices.Sort(times)
	var widest time.Duration
	for i := 1; i < len(times); i++ {
		widest = max(widest, times[i]-times[i-1])
	}
	return widest
}
