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
	cfg.ShardOf = robustness.ShardOf
	return cfg
}

func TestACorrectStoreRaisesNoAlarm(t *testing.T) {
	res, err := robustness.Run(t.Context(), newToySystem(t, ""), toyConfig(1))
	require.NoError(t, err)
	require.True(t, res.Clean(), res.String())
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
		t.Run(bug, func(t *testing.T) {
			res, err := robustness.Run(t.Context(), newToySystem(t, bug), toyConfig(1))
			require.NoError(t, err)
			require.True(t, slices.ContainsFunc(want, res.Report.Has), "wanted one of %q in\n%s", want, res)
		})
	}
}
