package report

import (
	"slices"

	"github.com/flotilla-kv/flotilla/benchmarks/compare"
)

// Spread summarises several rounds of one number.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf of nothing is all zeros.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	s := Spread{Median: v[mid], Min: v[0], Max: v[len(v)-1]}
	if len(v)%2 == 0 {
		s.Median = (v[mid-1] + v[mid]) / 2
	}
	return s
}

// times is the spread in another unit.
func (s Spread) times(factor float64) Spread {
	return Spread{Median: s.Median * factor, Min: s.Min * factor, Max: s.Max * factor}
}

// Row summarises one workload on one system.
type Row struct {
	Workload  string `json:"workload"`
	System    string `json:"system"`
	Clients   int    `json:"clients"`
	Rounds    int    `json:"rounds"`
	Rate      int    `json:"rate,omitempty"` // at which operations began; 0: none was set
	PerSecond Spread `json:"per_second"`
	// Ratio is the median throughput over that of the first system; 0 if unknown.
	Ratio float64 `json:"ratio"`
	// Latencies are in microseconds.
	P50  Spread `json:"p50_us"`
	P90  Spread `json:"p90_us"`
	P99  Spread `json:"p99_us"`
	P999 Spread `json:"p999_us"`
	Max  Spread `json:"max_us"`
	// WorstP99 is the largest p99 of any second, WorstSecond the fewest operations.
	WorstP99    Spread `json:"worst_second_p99_us"`
	WorstSecond Spread `json:"worst_second_operations"`
	// CPUPerOp and ClientPerOp are CPU microseconds of the servers and of the load.
	CPUPerOp     Spread `json:"cpu_us_per_op"`
	ClientPerOp  Spread `json:"client_cpu_us_per_op"`
	WrittenPerOp Spread `json:"written_bytes_per_op"`
	RSSBytes     Spread `json:"rss_bytes"`
	// Fsyncs is nil where not every server counted them.
	Fsyncs *Spread `json:"fsyncs_per_op,omitempty"`
	// RSSPerHeld is nil where nothing is held.
	RSSPerHeld *Spread `json:"rss_bytes_per_held,omitempty"`
	// OtherCPU is the share of the machine that neither servers nor load used: what disturbed the
	// measurement.
	OtherCPU Spread `json:"other_cpu"`
	Errors   int64  `json:"errors"`
}

// Summarize groups measurements by workload, then system, each in the order of its
// first appearance in workloads and systems.
func Summarize(measurements []compare.Measurement, workloads, systems []string) []Row {
	var rows []Row
	for _, w := range workloads {
		var first float64
		for i, s := range systems {
			var of []compare.Measurement
			for _, m := range measurements {
				if m.Workload == w && m.System == s {
					of = append(of, m)
				}
			}
			if len(of) == 0 {
				continue
			}
			row := rowOf(of)
			if i == 0 {
				first = row.PerSecond.Median
			}
			if first > 0 {
				row.Ratio = row.PerSecond.Median / first
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func rowOf(of []compare.Measurement) Row {
	spread := func(value func(compare.Measurement) float64) Spread {
		var values []float64
		for _, m := range of {
			values = append(values, value(m))
		}
		return spreadOf(values)
	}
	row := Row{
		Workload: of[0].Workload, System: of[0].System, Clients: of[0].Clients, Rounds: len(of), Rate: of[0].Rate,
		PerSecond:    spread(func(m compare.Measurement) float64 { return m.PerSecond }),
		P50:          spread(func(m compare.Measurement) float64 { return float64(m.Latency.P50) }),
		P90:          spread(func(m compare.Measurement) float64 { return float64(m.Latency.P90) }),
		P99:          spread(func(m compare.Measurement) float64 { return float64(m.Latency.P99) }),
		P999:         spread(func(m compare.Measurement) float64 { return float64(m.Latency.P999) }),
		Max:          spread(func(m compare.Measurement) float64 { return float64(m.Latency.Max) }),
		WorstP99:     spread(func(m compare.Measurement) float64 { return float64(m.Worst.P99) }),
		WorstSecond:  spread(func(m compare.Measurement) float64 { return float64(m.Worst.Operations) }),
		CPUPerOp:     spread(func(m compare.Measurement) float64 { return m.Servers.CPUPerOp }),
		ClientPerOp:  spread(func(m compare.Measurement) float64 { return m.ClientCPUPerOp }),
		WrittenPerOp: spread(func(m compare.Measurement) float64 { return m.Servers.WrittenBytesPerOp }),
		RSSBytes:     spread(func(m compare.Measurement) float64 { return float64(m.Servers.RSSBytes) }),
		OtherCPU:     spread(func(m compare.Measurement) float64 { return m.OtherCPU }),
	}
	for _, m := range of {
		row.Errors += m.ErrorCount()
	}
	row.Fsyncs = spreadIfKnown(of, func(m compare.Measurement) *float64 { return m.Servers.FsyncsPerOp })
	row.RSSPerHeld = spreadIfKnown(of, func(m compare.Measurement) *float64 { return m.Servers.RSSPerHeld })
	return row
}

// spreadIfKnown is nil unless every round has the number.
func spreadIfKnown(of []compare.Measurement, value func(compare.Measurement) *float64) *Spread {
	var values []float64
	for _, m := range of {
		v := value(m)
		if v == nil {
			return nil
		}
		values = append(values, *v)
	}
	s := spreadOf(values)
	return &s
}
