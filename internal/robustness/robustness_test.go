package robustness_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/history"
	"github.com/flotilla-kv/flotilla/internal/proccluster"
	"github.com/flotilla-kv/flotilla/internal/robustness"
)

const (
	// replicas is how many there are of a shard, and of the real etcd.
	replicas = 3
	// startPatience is long because other tests may share the machine.
	startPatience = 60 * time.Second
	// settlePatience has room for a split that is given up, which takes 30 s.
	settlePatience = 90 * time.Second
)

// TestClusterKeepsItsPromises is the test of record: load, kills and pauses, and not
// one answer that a correct store could not have given.
func TestClusterKeepsItsPromises(t *testing.T) {
	f := readFlags()
	if _, ok := f.flotillaTarget(t); !ok {
		t.Log("no node is linked into this test binary and -flotilla names none: nothing to test")
		return
	}
	f.eachSeed(t, func(t *testing.T, cfg robustness.Config) {
		cfg.PromptProgress, cfg.Native = true, true
		if cfg.Seed%2 == 0 {
			f.keepShards(t, cfg)
		} else {
			f.changeShards(t, cfg)
		}
	})
}

// keepShards runs on shards that stay as they are: then the checks know more of each.
func (f flags) keepShards(t *testing.T, cfg robustness.Config) {
	target, _ := f.flotillaTarget(t)
	target.layout = fixed
	cfg.ShardOf = robustness.ShardOf
	if cfg.Seed%4 == 0 {
		target.nodes++ // then some serve from afar what they have no replica of
	}
	requireClean(t, cfg, target.run(t, cfg))
}

// changeShards runs on shards that are split, moved and led by others all the time.
func (f flags) changeShards(t *testing.T, cfg robustness.Config) {
	var extra []string
	cfg.Nemesis, cfg.Patience, cfg.HandOn = cfg.Nemesis.Reshaping(), settlePatience, true
	if cfg.Seed%16 == 9 { // leaders change on request alone: nothing excuses leases that end late
		cfg.Nemesis.Weights[robustness.Kill], cfg.Nemesis.Weights[robustness.Pause] = 0, 0
	}
	if cfg.Seed%4 == 3 && f.flotilla == "" {
		extra = append(extra, shortLogs)
	}
	if cfg.Seed%8 == 7 && f.flotilla == "" {
		extra = append(extra, staleRoutes)
	}
	if cfg.Seed%8 == 5 {
		cfg.Nemesis.Weights[robustness.KillAll] = 1
	}
	target, _ := f.flotillaTarget(t, extra...)
	target.nodes += 1 + int(cfg.Seed/4%2)
	res := target.run(t, cfg)
	requireClean(t, cfg, res)
	require.NotZero(t, res.Changes, "nothing was split or moved")
	require.NotZero(t, res.Observed.Maps, "no map was looked at")
}

// TestEtcdRaisesNoAlarm runs the same load, faults and checks on the real etcd: what
// they find there is a mistake of the harness. With -planted it also runs what the
// planted bugs are looked for with.
func TestEtcdRaisesNoAlarm(t *testing.T) {
	f := readFlags()
	if f.etcd == "" {
		t.Log("-etcd names no binary: nothing to compare with")
		return
	}
	target := target{program: proccluster.Program{Path: f.etcd}, nodes: replicas, args: robustness.EtcdArgs, layout: etcdLayout}
	test := func(t *testing.T, cfg robustness.Config) {
		cfg.ShardOf = func(string) string { return "etcd is one shard" }
		res := target.run(t, cfg)
		if cfg.Nemesis.Weights[robustness.Pause] > 0 {
			res.Report.Violations = slices.DeleteFunc(res.Report.Violations, ofPausedLeader)
		}
		requireClean(t, cfg, res)
	}
	f.eachSeed(t, test)
	t.Run("without pauses", func(t *testing.T) {
		cfg := robustness.DefaultConfig(f.seed, f.duration)
		cfg.Nemesis.Weights = map[robustness.Fault]int{robustness.Kill: 1, robustness.Transfer: 1}
		test(t, cfg)
	})
	if !f.planted {
		return
	}
	for _, bug := range plantedBugs() {
		t.Run(bug.knob, func(t *testing.T) { test(t, bug.config(f.seed)) })
	}
}

// ofPausedLeader are what the real etcd does get wrong when a leader is paused: for a few
// ticks after it wakes it believes to be the leader still (etcdserver.ensureLeadership
// asks nobody then), and revokes leases that its successor has renewed, or renews some
// that its successor has revoked.
func ofPausedLeader(v history.Violation) bool {
	return v.Anomaly == history.EarlyExpiry || v.Anomaly == history.DeadLeaseRenewed
}

// target is what is tested: a program, how its nodes are started, and how its shards
// and leaders are changed.
type target struct {
	program proccluster.Program
	nodes   int
	args    func(node proccluster.Spec, all []proccluster.Spec) []string
	layout  func(*proccluster.Cluster) robustness.Layout
}

func fixed(*proccluster.Cluster) robustness.Layout { return robustness.Fixed{} }

func etcdLayout(c *proccluster.Cluster) robustness.Layout {
	return robustness.EtcdLayout{Endpoints: c.Endpoints()}
}

func flotillaLayout(c *proccluster.Cluster) robustness.Layout {
	var l robustness.FlotillaLayout
	for _, n := range c.Nodes() {
		l.Nodes = append(l.Nodes, n.Spec)
	}
	return l
}

// flotillaTarget returns flotilla as a target, with bugs planted by name, and whether there
// is one to test.
func (f flags) flotillaTarget(t *testing.T, knobs ...string) (target, bool) {
	t.Helper()
	out := target{program: proccluster.Program{Path: f.flotilla}, nodes: replicas, args: robustness.FlotillaArgs, layout: flotillaLayout}
	if f.flotilla != "" {
		require.Empty(t, knobs, "bugs can only be planted in the node of this test binary")
		return out, true
	}
	if nodeEntry(nil) == nil {
		return target{}, false
	}
	program, err := proccluster.Self(knobsEnv + "=" + strings.Join(knobs, ","))
	require.NoError(t, err)
	out.program = program
	return out, true
}

func (f flags) eachSeed(t *testing.T, test func(*testing.T, robustness.Config)) {
	for seed := f.seed; seed < f.seed+int64(f.seeds); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			test(t, robustness.DefaultConfig(seed, f.duration))
		})
	}
}

// run starts a fresh cluster and makes one run on it.
func (tg target) run(t *testing.T, cfg robustness.Config) robustness.Result {
	t.Helper()
	cluster, err := proccluster.New(t, proccluster.Config{Program: tg.program, Nodes: tg.nodes, Args: tg.args})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	require.NoError(t, cluster.Start(ctx))
	res, err := robustness.Run(t.Context(), robustness.NewProcesses(cluster, tg.layout(cluster)), cfg)
	require.NoError(t, err)
	t.Log(res)
	return res
}

// requireClean fails with what a reader needs to look further: the command that runs
// the same seed again, and the whole history.
func requireClean(t *testing.T, cfg robustness.Config, res robustness.Result) {
	t.Helper()
	require.NotZero(t, res.Report.Total)
	if res.Clean() {
		return
	}
	path := filepath.Join(t.ArtifactDir(), "history.txt")
	require.NoError(t, dump(path, res.History))
	t.Errorf("replay: go test ./internal/robustness -run '%s' -seed=%d -duration=%s -artifacts\nhistory (kept with -artifacts): %s",
		t.Name(), cfg.Seed, cfg.Duration, path)
}

func dump(path string, h history.History) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("dump the history: %w", err)
	}
	defer file.Close()
	var lines []fmt.Stringer
	for _, op := range h.Ops {
		lines = append(lines, op)
	}
	for _, op := range h.Leases {
		lines = append(lines, op)
	}
	for _, w := range h.Watches {
		lines = append(lines, w)
		for _, resp := range w.Responses {
			lines = append(lines, resp)
		}
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(file, line); err != nil {
			return fmt.Errorf("dump the history: %w", err)
		}
	}
	return nil
}
