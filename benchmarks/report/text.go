package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// Text is all tables for a terminal.
func (r Report) Text() string {
	return r.tables(table.Writer.Render) + fmt.Sprintf("commit %s; %s\n", r.Commit, r.Machine)
}

// Markdown is all tables with what is needed to read and to repeat them.
func (r Report) Markdown() string {
	return fmt.Sprintf("%sCommit %s, %s.\n%s.\n\n`%s`\n",
		r.tables(table.Writer.RenderMarkdown), r.Commit, r.Started.UTC().Format(time.DateTime), r.Machine, r.Command)
}

func (r Report) tables(render func(table.Writer) string) string {
	var b strings.Builder
	if len(r.Rows) > 0 {
		b.WriteString(render(Table(r.Rows)) + "\n\n")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Peaks)) {
		fmt.Fprintf(&b, "The first system's peak of %s was %.0f a second.\n\n", name, r.Peaks[name])
	}
	for _, o := range r.Outcomes {
		b.WriteString(render(Figures(o)) + "\n\n")
		if len(o.Costs) > 0 {
			b.WriteString(render(Costs(o)) + "\n\n")
		}
		if len(o.Phases) > 0 {
			b.WriteString(render(Phases(o)) + "\n\n")
		}
	}
	return b.String()
}
