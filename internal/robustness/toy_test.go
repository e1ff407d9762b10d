package robustness_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/internal/history"
	"github.com/flotilla-kv/flotilla/internal/robustness"
)

// toyConfig is a run of less than a second.
func toyConfig(seed int64) robustness.Config {
	cfg := robustness.DefaultConfig(seed, 700*time.Millisecond)
	cfg.Workload.Rate, cfg.Workload.Timeout = 1500, 100*time.Millisecond
	cfg.Nemesis.Gap = robustness.Between{Min: 50 * time.Millisecond, Max: 150 * time.Millisecond}
	cfg.Nemesis.Down = robustness.Between{Max: 100 * time.Millisecond}
	cfg.Nemesis.Paused = robustness.Between{Min: 50 * time.Millisecond, Max: 250 * time.Millisecond}
	cfg.Workload.Watchers, cfg.Workload.Lessees = 0, 0
	cfg.ShardOf, cfg.PromptProgress = robustness.ShardOf, true
	return cfg
}

// watched adds clients that watch.
func watched(seed int64) robustness.Config {
	cfg := toyConfig(seed)
	cfg.Workload.Watchers = 6
	return cfg
}

// leased adds clients that hold leases to those. One lives for a second at least, and its end
// belongs to the run.
func leased(seed int64) robustness.Config {
	cfg := watched(seed)
	cfg.Duration, cfg.Patience = 2*time.Second, 6*time.Second
	cfg.Workload.Rate, cfg.Workload.Lessees = 500, 4
	cfg.Workload.LeaseTTL = robustness.Between{Min: time.Second}
	return cfg
}

func TestACorrectStoreRaisesNoAlarm(t *testing.T) {
	res, err := robustness.Run(t.Context(), newToySystem(t, ""), leased(1))
	require.NoError(t, err)
	require.True(t, res.Clean(), res.String())
	require.NotZero(t, res.Report.Events)
	require.NotZero(t, res.Report.Leases)
	require.Greater(t, res.Report.Total, 300)
	require.NotZero(t, res.Report.Unknown, "the faults were too gentle to leave a write in doubt")
}

// The way from a bug in a store to a violation is tested end to end, over gRPC and
// under faults, before there is a cluster to plant bugs in.
func TestBugsOfAToyStoreAreFound(t *testing.T) {
	for bug, want := range map[string][]history.Anomaly{
		"lost write":          {history.LostWrite, history.StaleRead},
		"stale read":          {history.StaleRead, history.TornCut},
		"torn cut":            {history.TornCut, history.RevisionRegression},
		"double apply":        {history.TwoRevisions, history.DoubleApply},
		"half a batch":        {history.LostWrite, history.StaleRead},
		"refused but applied": {history.RefusedWriteApplied},
		"shared slots":        {history.DuplicateRevision},
		"two revisions":       {history.TwoRevisions},
	} {
		t.Run(bug, func(t *testing.T) { requireFound(t, bug, toyConfig, want) })
	}
}

func TestWatchBugsOfAToyStoreAreFound(t *testing.T) {
	for bug, want := range map[string][]history.Anomaly{
		"lost event":                {history.LostEvent},
		"duplicate event":           {history.DuplicateEvent},
		"released before the floor": {history.LostEvent, history.UnorderedEvents},
		"early progress":            {history.EarlyProgress},
		"short progress":            {history.ShortProgress, history.RevisionRegression},
		"split revision":            {history.SplitRevision},
		"before the start":          {history.EventBeforeStart},
		"no previous value":         {history.WrongPrevKV},
	} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			requireFound(t, bug, watched, want)
		})
	}
}

func TestLeaseBugsOfAToyStoreAreFound(t *testing.T) {
	for bug, want := range map[string][]history.Anomaly{
		"early expiry":        {history.EarlyExpiry},
		"put to a dead lease": {history.DeadLeaseAccepted},
		"key of a dead lease": {history.DeadLeaseKey},
		"deleted twice":       {history.DoubleDelete},
	} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			requireFound(t, bug, leased, want)
		})
	}
}

// requireFound makes runs until one exposes the bug: on a busy machine one may be over
// before much has happened.
func requireFound(t *testing.T, bug string, config func(seed int64) robustness.Config, want []history.Anomaly) {
	t.Helper()
	const attempts = 5
	for seed := int64(1); ; seed++ {
		res, err := robustness.Run(t.Context(), newToySystem(t, bug), config(seed))
		require.NoError(t, err)
		if slices.ContainsFunc(want, res.Report.Has) {
			return
		}
		require.Less(t, seed, int64(attempts), "wanted one of %q in\n%s", want, res)
	}
}
