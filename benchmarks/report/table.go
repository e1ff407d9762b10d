package report

import (
	"fmt"
	"strconv"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table lays the rows out; the caller renders it as text or Markdown.
func Table(rows []Row) table.Writer {
	t := table.NewWriter()
	t.Style().Format.Header = text.FormatDefault // capitals would turn µ into Μ
	t.AppendHeader(table.Row{
		"workload", "system", "clients", "rate", "ops/s (min–max)", "ratio",
		"p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "worst second: ops", "worst second: p99 ms",
		"server CPU µs/op", "client CPU µs/op", "KiB written/op", "fsyncs/op", "RSS MiB", "KiB/held", "other CPU %", "errors",
	})
	var right []table.ColumnConfig
	for n := 3; n <= 21; n++ {
		right = append(right, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	for i, r := range rows {
		if i > 0 && rows[i-1].Workload != r.Workload {
			t.AppendSeparator()
		}
		t.AppendRow(table.Row{
			r.Workload, r.System, r.Clients, rate(r.Rate),
			perSecond(r.PerSecond),
			ratio(r.Ratio),
			ms(r.P50), ms(r.P90), ms(r.P99), ms(r.P999), ms(Spread{Median: r.Max.Max}),
			fmt.Sprintf("%.0f", r.WorstSecond.Min), ms(Spread{Median: r.WorstP99.Max}),
			fmt.Sprintf("%.0f", r.CPUPerOp.Median), fmt.Sprintf("%.0f", r.ClientPerOp.Median),
			fmt.Sprintf("%.2f", r.WrittenPerOp.Median/1024), known(r.Fsyncs, "%.3f", 1),
			fmt.Sprintf("%.0f", r.RSSBytes.Median/(1<<20)), known(r.RSSPerHeld, "%.2f", 1.0/1024), fmt.Sprintf("%.0f", 100*r.OtherCPU.Max), r.Errors,
		})
	}
	return t
}

func perSecond(s Spread) string {
	format := "%.0f (%.0f–%.0f)"
	if s.Median < 10 {
		format = "%.2f (%.2f–%.2f)"
	}
	return fmt.Sprintf(format, s.Median, s.Min, s.Max)
}

func ms(s Spread) string { return fmt.Sprintf("%.2f", s.Median/1000) }

func rate(v int) string {
	if v == 0 {
		return "–"
	}
	return strconv.Itoa(v)
}

func ratio(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2fx", v)
}

// known is a median in another unit, or a dash.
func known(s *Spread, format string, unit float64) string {
	if s == nil {
		return "–"
	}
	return fmt.Sprintf(format, s.Median*unit)
}
