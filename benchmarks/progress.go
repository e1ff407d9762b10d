package main

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/spf13/cobra"
)

// course tells how far a run is: a bar below the log on a terminal, elsewhere the log alone.
type course struct {
	log *slog.Logger
	bar progress.Writer // nil: there is none
	of  *progress.Tracker
}

// begin starts to tell of a run of so many parts; 0: it is not known of how many.
func begin(cmd *cobra.Command, what string, parts int) *course {
	out, is := cmd.ErrOrStderr().(*os.File)
	if !is || !isTerminal(out) {
		return &course{log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))}
	}
	c := &course{bar: progress.NewWriter(), of: &progress.Tracker{Message: what, Total: int64(parts)}}
	c.bar.SetOutputWriter(out)
	c.bar.SetUpdateFrequency(200 * time.Millisecond)
	c.bar.AppendTracker(c.of)
	go c.bar.Render()
	c.log = slog.New(slog.NewTextHandler(aboveBar{c.bar}, nil))
	return c
}

// isTerminal is wrong for /dev/null, where nobody minds.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// part says that one more part is done.
func (c *course) part() {
	if c.bar != nil {
		c.of.Increment(1)
	}
}

// end leaves the terminal as it was.
func (c *course) end() {
	if c.bar != nil {
		c.of.MarkAsDone()
		c.bar.Stop()
		for c.bar.IsRenderInProgress() {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// aboveBar writes lines so that the bar stays below them.
type aboveBar struct{ bar progress.Writer }

var _ io.Writer = aboveBar{}

func (a aboveBar) Write(line []byte) (int, error) {
	a.bar.Log("%s", strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}
