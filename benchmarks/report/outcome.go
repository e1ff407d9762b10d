package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/flotilla-kv/flotilla/benchmarks/scenario"
)

// Figures is the table of a scenario's numbers, with what they should be.
func Figures(o scenario.Outcome) table.Writer {
	t := newTable(o.Name, "figure", "must", "goal", "")
	for _, f := range o.Figures {
		must, goal := "", ""
		if f.Bound != nil {
			must, goal = limit(f, f.Bound.Must), limit(f, f.Bound.Goal)
		}
		t.AppendRow(table.Row{f.Name, amount(f.Value, f.Unit), must, goal, f.Verdict()})
	}
	alignRight(t, 2, 4)
	return t
}

// Phases is the table of the load's results in each phase.
func Phases(o scenario.Outcome) table.Writer {
	t := newTable(o.Name, "s", "answers/s", "failed", "p50 ms", "p99 ms", "max ms", "errors")
	for _, p := range o.Phases {
		t.AppendRow(table.Row{p.Name, fmt.Sprintf("%.1f", p.Seconds), fmt.Sprintf("%.0f", p.PerSecond), p.Failed,
			fmt.Sprintf("%.2f", p.P50), fmt.Sprintf("%.2f", p.P99), fmt.Sprintf("%.2f", p.Max), errorText(p.Errors)})
	}
	alignRight(t, 2, 7)
	return t
}

// Costs is the table of the results of puts and gets, with ever more shards and clients.
func Costs(o scenario.Outcome) table.Writer {
	t := newTable("workload", "shards", "clients", "ops/s", "of one shard", "p50 ms", "p99 ms", "server CPU µs/op", "errors")
	costs := slices.Clone(o.Costs)
	slices.SortStableFunc(costs, func(a, b scenario.Cost) int { // as measured otherwise: by shards, then clients
		return cmp.Or(-cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Clients, b.Clients))
	})
	for i, c := range costs {
		if i > 0 && (costs[i-1].Workload != c.Workload || costs[i-1].Clients != c.Clients) {
			t.AppendSeparator()
		}
		share := "–"
		if c.OfOne > 0 {
			share = fmt.Sprintf("%.0f %%", 100*c.OfOne)
		}
		t.AppendRow(table.Row{c.Workload, c.Shards, c.Clients, fmt.Sprintf("%.0f", c.PerSecond), share,
			fmt.Sprintf("%.2f", c.P50), fmt.Sprintf("%.2f", c.P99), fmt.Sprintf("%.0f", c.CPU), c.Errors})
	}
	alignRight(t, 2, 9)
	return t
}

func newTable(header ...string) table.Writer {
	t := table.NewWriter()
	t.Style().Format.Header = text.FormatDefault // capitals would turn µ into Μ
	row := make(table.Row, len(header))
	for i, h := range header {
		row[i] = h
	}
	t.AppendHeader(row)
	return t
}

func alignRight(t table.Writer, from, to int) {
	var right []table.ColumnConfig
	for n := from; n <= to; n++ {
		right = append(right, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
}

func limit(f scenario.Figure, v float64) string {
	if f.Bound.AtLeast {
		return "≥ " + amount(v, f.Unit)
	}
	return "≤ " + amount(v, f.Unit)
}

// amount has about three digits.
func amount(v float64, unit string) string {
	format := "%.0f"
	switch {
	case v == float64(int64(v)):
	case v < 1:
		format = "%.3f"
	case v < 100:
		format = "%.1f"
	}
	return strings.TrimSpace(fmt.Sprintf(format+" %s", v, unit))
}

func errorText(errors map[string]int) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(errors)) {
		out = append(out, fmt.Sprintf("%d× %s", errors[name], name))
	}
	return strings.Join(out, ", ")
}
