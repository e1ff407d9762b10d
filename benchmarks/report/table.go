package report

import (
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table lays the rows out for people; the caller renders it as text or Markdown.
func Table(rows []Row) table.Writer {
	t := table.NewWriter()
	t.Style().Format.Header = text.FormatDefault // capitals would turn µ into Μ
	t.AppendHeader(table.Row{
		"workload", "system", "clients", "ops/s (min–max)", "ratio",
		"p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms",
		"server CPU µs/op", "client CPU µs/op", "KiB written/op", "fsyncs/op", "RSS MiB", "other CPU %", "errors",
	})
	var right []table.ColumnConfig
	for n := 3; n <= 17; n++ {
		right = append(right, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	for i, r := range rows {
		if i > 0 && rows[i-1].Workload != r.Workload {
			t.AppendSeparator()
		}
		t.AppendRow(table.Row{
			r.Workload, r.System, r.Clients,
			fmt.Sprintf("%.0f (%.0f–%.0f)", r.PerSecond.Median, r.PerSecond.Min, r.PerSecond.Max),
			ratio(r.Ratio),
			ms(r.P50), ms(r.P90), ms(r.P99), ms(r.P999), ms(Spread{Median: r.Max.Max}),
			fmt.Sprintf("%.0f", r.CPUPerOp.Median), fmt.Sprintf("%.0f", r.ClientPerOp.Median),
			fmt.Sprintf("%.2f", r.WrittenPerOp.Median/1024), fsyncs(r.Fsyncs),
			fmt.Sprintf("%.0f", r.RSSBytes.Median/(1<<20)), fmt.Sprintf("%.0f", 100*r.OtherCPU.Max), r.Errors,
		})
	}
	return t
}

func ms(s Spread) string { return fmt.Sprintf("%.2f", s.Median/1000) }

func ratio(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2fx", v)
}

func fsyncs(s *Spread) string {
	if s == nil {
		return "–"
	}
	return fmt.Sprintf("%.3f", s.Median)
}
