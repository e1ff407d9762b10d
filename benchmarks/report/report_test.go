package report

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/benchmarks/compare"
	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/scenario"
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
	require.Contains(t, string(text), "| put | flotilla/1 | 7 | – | 250 (200–300) | 2.50x |")
	data, err := os.ReadFile(filepath.Join(dir, "results.json"))
	require.NoError(t, err)
	require.True(t, json.Valid(data))
	back, err := Read(dir)
	require.NoError(t, err)
	require.Equal(t, rows, back.Rows)
	isSVG(t, dir, "ops.svg", "p99.svg")

	r.Version++
	require.NoError(t, r.Write(dir))
	_, err = Read(dir)
	require.ErrorContains(t, err, "version 2")
}

// isSVG checks that the files are well-formed pictures.
func isSVG(t *testing.T, dir string, names ...string) {
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		var picture struct {
			XMLName xml.Name
			Text    []string `xml:"text"`
		}
		require.NoError(t, xml.Unmarshal(data, &picture), name)
		require.Equal(t, "svg", picture.XMLName.Local)
		require.NotEmpty(t, picture.Text)
		require.NotContains(t, string(data), "NaN")
	}
}

func TestOutcomeAndFiles(t *testing.T) {
	dir := t.TempDir()
	r := Report{Version: FormatVersion, Outcomes: []scenario.Outcome{{
		Name: "reshape",
		Figures: []scenario.Figure{
			{Name: "pause", Value: 12.34, Unit: "ms", Bound: &scenario.Bound{Must: 50, Goal: 10}},
			{Name: "kept", Value: 80, Unit: "%", Bound: &scenario.Bound{Must: 90, Goal: 90, AtLeast: true}},
			{Name: "copied", Value: 0.5},
		},
		Costs: []scenario.Cost{
			{Shards: 1, Clients: 9, Workload: "put", PerSecond: 200, OfOne: 1, P50: 1.5, P99: 2.25, CPU: 60},
			{Shards: 8, Clients: 9, Workload: "put", PerSecond: 100, OfOne: 0.5, Errors: 3},
		},
		Phases: []scenario.Phase{{Name: "calm", Seconds: 2, PerSecond: 100, Errors: map[string]int{"x": 1}, Failed: 1}},
		Lines:  []scenario.Line{{Name: "puts", Seconds: []load.Second{{Done: 3}, {Failed: 1}}, Marks: []scenario.Mark{{At: time.Second, What: "a < b"}}}},
	}}}
	require.NoError(t, r.Write(dir))
	text, err := os.ReadFile(filepath.Join(dir, "results.md"))
	require.NoError(t, err)
	require.Contains(t, string(text), "| pause | 12.3 ms | ≤ 50 ms | ≤ 10 ms | must met |")
	require.Contains(t, string(text), "| kept | 80 % | ≥ 90 % | ≥ 90 % | MUST MISSED |")
	require.Contains(t, string(text), "| copied | 0.500 |  |  |  |")
	require.Contains(t, string(text), "| put | 1 | 9 | 200 | 100 % | 1.50 | 2.25 | 60 | 0 |\n| put | 8 | 9 | 100 | 50 % |")
	require.Contains(t, string(text), "| calm | 2.0 | 100 | 1 | 0.00 | 0.00 | 0.00 | 1× x |")
	isSVG(t, dir, "reshape-puts.svg")
}

func TestThisMachineIsDescribed(t *testing.T) {
	m := ThisMachine(t.TempDir())
	require.Positive(t, m.Cores)
	require.NotEqual(t, unknown, m.FileSystem)
}
