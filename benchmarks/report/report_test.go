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
	isSVG(t, dir, "ops.svg", "p99.svg", "ratio.svg")

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
	dir := t.TempDir()
	m, err := ThisMachine(dir)
	require.NoError(t, err)
	require.Positive(t, m.Cores)
	require.NotEqual(t, unknown, m.FileSystem)
	require.Positive(t, m.Fsync)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = ThisMachine(filepath.Join(dir, "gone"))
	require.ErrorContains(t, err, "time the disk")
}

func TestReadme(t *testing.T) {
	row := func(workload, system string, perSecond, p50, p99, cpu float64) Row {
		return Row{Workload: workload, System: system, Rounds: 3, PerSecond: Spread{Median: perSecond},
			P50: Spread{Median: p50}, P99: Spread{Median: p99}, CPUPerOp: Spread{Median: cpu}}
	}
	earlier := Report{Commit: "old", Command: "go run ./benchmarks a", Peers: map[string]string{"etcd": "3.7.3"}, Rows: []Row{
		row("put", "etcd", 10_000, 0, 0, 136), row("put", "flotilla/1", 1, 0, 0, 1),
		row("put1", "etcd", 900, 1032, 2355, 0), row("put1", "flotilla/1", 1100, 853, 1597, 0),
		row("watch-1", "etcd", 200, 1600, 3400, 0), // and not the other two
	}}
	later := Report{Commit: "new", Command: "go run ./benchmarks b", Rows: []Row{row("put", "flotilla/1", 20_475, 0, 0, 39)}}
	require.Equal(t, `| server CPU in µs per operation | etcd 3.7.3 | Flotilla, 1 shard |
|---|---|---|
| put, 1,000 clients | 10,000/s, 136 µs | 20,475/s, 39 µs: **2.05x** |
| put, one client, median (p99) | 1.03 ms (2.35) | 0.85 ms (1.60): **0.83x the wait** |

Rounds: 3 (medians); commit old; , 0 cores, 0 GiB, Linux , data on , .
`+"`go run ./benchmarks a`"+`
Rounds: 3 (medians); commit new; , 0 cores, 0 GiB, Linux , data on , .
`+"`go run ./benchmarks b`"+`
`, Readme(earlier, later))
	require.Equal(t, "1,062,566", grouped(1062566))
	require.Equal(t, "999", grouped(999))
	_, err := load.Named(ReadmeWorkloads())
	require.NoError(t, err)
}
