package report

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
	"github.com/flotilla-kv/flotilla/benchmarks/scenario"
)

// charts are SVG files by name: some of all rows, and one for each line of a scenario.
func (r Report) charts() map[string]string {
	out := make(map[string]string)
	if len(r.Rows) > 0 {
		out["ops.svg"] = barChart("operations per second, median and range of the rounds", r.Rows,
			func(r Row) Spread { return r.PerSecond })
		out["p99.svg"] = barChart("p99 in ms, median and range of the rounds", r.Rows,
			func(r Row) Spread { return r.P99.times(1.0 / 1000) })
		if first := r.Rows[0].System; slices.ContainsFunc(r.Rows, func(r Row) bool { return r.System != first && r.Ratio > 0 }) {
			out["ratio.svg"] = barChart("operations per second of those of "+first+", median and range of the rounds", r.Rows,
				func(r Row) Spread { return r.PerSecond.times(r.Ratio / max(r.PerSecond.Median, 1e-9)) })
		}
	}
	for _, o := range r.Outcomes {
		for _, l := range o.Lines {
			out[strings.ReplaceAll(o.Name+"-"+l.Name, " ", "-")+".svg"] = lineChart(o.Name, l)
		}
	}
	return out
}

// Sizes in pixels.
const (
	chartWidth  = 800
	labelWidth  = 160
	barHeight   = 14
	plotHeight  = 120
	chartMargin = 30
)

// colours that can be told apart by those who see no red or green.
func colours() []string { return []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"} }

// drawing is an SVG picture being made.
type drawing struct{ strings.Builder }

func newDrawing(height int, title string) *drawing {
	d := &drawing{}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", chartWidth, height)
	fmt.Fprintf(d, `<rect width="%d" height="%d" fill="white"/>`+"\n", chartWidth, height)
	d.text(4, 16, "start", title)
	return d
}

func (d *drawing) text(x, y float64, anchor, text string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(text))
}

func (d *drawing) line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
}

func (d *drawing) end() string { return d.String() + "</svg>\n" }

// barChart has a bar for each row, in groups of one workload, with a line over its range.
func barChart(title string, rows []Row, value func(Row) Spread) string {
	var most float64
	var systems []string
	for _, r := range rows {
		most = max(most, value(r).Max)
		if !slices.Contains(systems, r.System) {
			systems = append(systems, r.System)
		}
	}
	d := newDrawing(chartMargin+len(rows)*(barHeight+4)+chartMargin, title)
	scale := (chartWidth - labelWidth - 90) / max(most, 1e-9)
	y := float64(chartMargin)
	for _, r := range rows {
		v, middle := value(r), y+barHeight/2
		d.text(labelWidth-6, y+barHeight-3, "end", r.Workload+" "+r.System)
		colour := colours()[slices.Index(systems, r.System)%len(colours())]
		fmt.Fprintf(d, `<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, y, v.Median*scale, barHeight, colour)
		d.line(labelWidth+v.Min*scale, middle, labelWidth+v.Max*scale, middle, "black")
		d.text(labelWidth+v.Max*scale+6, y+barHeight-3, "start", amount(v.Median, ""))
		y += barHeight + 4
	}
	return d.end()
}

// lineChart has answers, failures and p99 for each second, and what happened when.
func lineChart(title string, l scenario.Line) string {
	plots := []struct {
		name  string
		value func(load.Second) float64
	}{
		{"answers a second", func(s load.Second) float64 { return float64(s.Done) }},
		{"failed", func(s load.Second) float64 { return float64(s.Failed) }},
		{"p99 in ms", func(s load.Second) float64 { return float64(s.P99) / float64(time.Millisecond) }},
	}
	d := newDrawing(chartMargin+len(plots)*(plotHeight+chartMargin)+chartMargin, title+": "+l.Name)
	step := float64(chartWidth-labelWidth-chartMargin) / float64(max(1, len(l.Seconds)-1))
	for i, p := range plots {
		top := float64(chartMargin + i*(plotHeight+chartMargin))
		bottom := top + plotHeight
		var most float64
		for _, s := range l.Seconds {
			most = max(most, p.value(s))
		}
		var points []string
		for at, s := range l.Seconds {
			points = append(points, fmt.Sprintf("%.1f,%.1f", labelWidth+float64(at)*step, bottom-p.value(s)*plotHeight/max(most, 1e-9)))
		}
		d.text(labelWidth-6, top+10, "end", amount(most, ""))
		d.text(labelWidth-6, bottom, "end", p.name)
		d.line(labelWidth, bottom, chartWidth-chartMargin, bottom, "#999")
		fmt.Fprintf(d, `<polyline points="%s" fill="none" stroke="%s"/>`+"\n", strings.Join(points, " "), colours()[i])
		for _, m := range l.Marks {
			x := labelWidth + m.At.Seconds()*step
			d.line(x, top, x, bottom, "#bbb")
			if i == 0 {
				d.text(x+2, top-2, "start", m.What)
			}
		}
	}
	return d.end()
}
