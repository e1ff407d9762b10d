package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// line is one of the README's table: a figure of one workload, or of several that differ by
// how many there are of something.
type line struct {
	title     string
	workloads []string
	value     func(Row) float64
	format    func(float64) string
	unit      string
	// wait: less is better, so the ratio is told as that of what is waited.
	wait bool
	// also is told of the only workload, behind its figure; nil: nothing.
	also func(Row) string
	// plain: a ratio says nothing.
	plain bool
}

func readmeLines() []line {
	perSecond := func(r Row) float64 { return r.PerSecond.Median }
	p50 := func(r Row) float64 { return r.P50.Median / 1000 }
	p99 := func(r Row) float64 { return r.P99.Median / 1000 }
	cpu := func(r Row) string { return fmt.Sprintf(", %s µs", grouped(r.CPUPerOp.Median)) }
	throughput := func(title, workload string) line {
		return line{title: title, workloads: []string{workload}, value: perSecond, format: grouped, unit: "/s", also: cpu}
	}
	watchers := func(prefix string) []string { return []string{prefix + "1", prefix + "100", prefix + "1000"} }
	return []line{
		throughput("put, 1,000 clients", "put"),
		throughput("linearizable get, 1,000 clients", "get"),
		throughput("txn compare-and-put, 1,000 clients", "txn"),
		{title: "put, one client, median (p99)", workloads: []string{"put1"}, value: p50, format: hundredths, unit: " ms", wait: true,
			also: func(r Row) string { return fmt.Sprintf(" (%s)", hundredths(p99(r))) }},
		throughput("put through Flotilla's own client, 1,000 goroutines; etcd: clientv3", "native-put"),
		throughput("linearizable get, the same", "native-get"),
		throughput("renewals of 100,000 leases, on streams", "lease-keepalive"),
		{title: "event after its put, 1 / 100 / 1,000 watchers, at most 20,000 events/s, p50", workloads: watchers("watch-"), value: p50, format: tenths, unit: " ms", wait: true},
		{title: "the same, p99", workloads: watchers("watch-"), value: p99, format: tenths, unit: " ms", wait: true},
		{title: "events delivered, 1 / 100 / 1,000 watchers", workloads: watchers("watch-max-"), value: perSecond, format: grouped, unit: " per s"},
		throughput("list of 1,000 keys, 50 clients", "list-1000"),
		{title: "memory of an idle watch", workloads: []string{"watch-idle"}, value: perHeld, format: hundredths, unit: " KiB", plain: true},
	}
}

// ReadmeWorkloads are what the README's table is made of.
func ReadmeWorkloads() []string {
	var out []string
	for _, l := range readmeLines() {
		for _, w := range l.workloads {
			if !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
	}
	return out
}

// Readme is the README's table, as far as the reports contain it, and its origin. If several
// contain a value, the last one's is used.
func Readme(reports ...Report) string {
	rows := make(map[[2]string]Row)
	var systems []string
	for _, r := range reports {
		for _, row := range r.Rows {
			rows[[2]string{row.Workload, row.System}] = row
			if !slices.Contains(systems, row.System) {
				systems = append(systems, row.System)
			}
		}
	}
	var b strings.Builder
	b.WriteString("| server CPU in µs per operation |")
	for _, s := range systems {
		b.WriteString(" " + systemTitle(s, reports) + " |")
	}
	b.WriteString("\n|" + strings.Repeat("---|", 1+len(systems)) + "\n")
	for _, l := range readmeLines() {
		cells := make([]string, len(systems))
		known := false
		for i, s := range systems {
			cells[i] = l.cell(rows, s, systems[0])
			known = known || cells[i] != "–"
		}
		if known {
			fmt.Fprintf(&b, "| %s | %s |\n", l.title, strings.Join(cells, " | "))
		}
	}
	b.WriteString("\n")
	for _, r := range reports {
		if len(r.Rows) > 0 {
			fmt.Fprintf(&b, "Rounds: %d (medians); commit %s; %s.\n`%s`\n", r.Rows[0].Rounds, r.Commit, r.Machine, r.Command)
		}
	}
	return b.String()
}

// systemTitle is what the README calls a system.
func systemTitle(label string, reports []Report) string {
	if n, found := strings.CutPrefix(label, "flotilla/"); found {
		if n == "1" {
			return "Flotilla, 1 shard"
		}
		return "Flotilla, " + n + " shards"
	}
	for _, r := range reports {
		if version := r.Peers[label]; version != "" {
			return label + " " + version
		}
	}
	return label
}

// cell is a system's figures and how they stand to the first system's; a dash where one was
// not measured.
func (l line) cell(rows map[[2]string]Row, system, first string) string {
	var values, ratios []string
	var last Row
	for _, w := range l.workloads {
		row, found := rows[[2]string{w, system}]
		if !found {
			return "–"
		}
		values, last = append(values, l.format(l.value(row))), row
		if of, found := rows[[2]string{w, first}]; found && l.value(of) > 0 {
			ratios = append(ratios, fmt.Sprintf("%.2fx", l.value(row)/l.value(of)))
		}
	}
	cell := strings.Join(values, " / ") + l.unit
	if l.also != nil {
		cell += l.also(last)
	}
	if system == first || l.plain || len(ratios) == 0 {
		return cell
	}
	cell += ": **" + strings.Join(ratios, ", ")
	if l.wait {
		cell += " the wait"
	}
	return cell + "**"
}

func perHeld(r Row) float64 {
	if r.RSSPerHeld == nil {
		return 0
	}
	return r.RSSPerHeld.Median / 1024
}

func tenths(v float64) string     { return fmt.Sprintf("%.1f", v) }
func hundredths(v float64) string { return fmt.Sprintf("%.2f", v) }

// grouped is a whole number with commas between its thousands.
func grouped(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
