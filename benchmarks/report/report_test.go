package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/benchmarks/compare"
	"github.com/flotilla-kv/flotilla/benchmarks/load"
)

func TestSpread(t *testing.T) {
	require.Equal(t, Spread{}, spreadOf(nil))
	require.Equal(t, Spread{Median: 2, Min: 1, Max: 9}, spreadOf([]float64{9, 1, 2}))
	require.Equal(t, Spread{Median: 3, Min: 1, Max: 9}, spreadOf([]float64{9, 1, 2, 4}))
}

func measurement(system, workload string, perSecond float64) compare.Measurement {
	return compare.Measurement{System: system, Workload: workload, Clients: 7,
		Result: load.Result{PerSecond: perSecond, Errors: map[string]int64{"Unavailable": 1}}}
}

func TestSummaryAndFiles(t *testing.T) {
	rows := Summarize([]compare.Measurement{
		measurement("etcd", "put", 100), measurement("flotilla/1", "put", 300),
		measurement("flotilla/1", "put", 200), measurement("etcd", "put", 100),
		measurement("flotilla/1", "get", 50),
	}, []string{"get", "put"}, []string{"etcd", "flotilla/1"})
	require.Len(t, rows, 3)
	require.Equal(t, "get", rows[0].Workload)
	require.Zero(t, rows[0].Ratio, "nothing to compare with")
	require.Equal(t, "flotilla/1", rows[2].System)
	require.InDelta(t, 2.5, rows[2].Ratio, 0)
	require.Equal(t, int64(2), rows[2].Errors)
	require.Nil(t, rows[2].Fsyncs)

	dir := filepath.Join(t.TempDir(), "out")
	r := Report{Version: FormatVersion, Commit: "abc", Command: "go run", Rows: rows}
	require.NoError(t, r.Write(dir))
	text, err := os.ReadFile(filepath.Join(dir, "results.md"))
	require.NoError(t, err)
	require.Contains(t, string(text), "| put | flotilla/1 | 7 | 250 (200–300) | 2.50x |")
	data, err := os.ReadFile(filepath.Join(dir, "results.json"))
	require.NoError(t, err)
	var back Report
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, rows, back.Rows)
}

func TestThisMachineIsDescribed(t *testing.T) {
	m := ThisMachine(t.TempDir())
	require.Positive(t, m.Cores)
	require.NotEqual(t, unknown, m.FileSystem)
}
