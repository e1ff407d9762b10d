package cmd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
)

// stage is the progress of something that a command waits for.
type stage struct {
	done bool
	// state describes it; empty: nothing is known yet.
	state string
	// left is how much remains, a number that falls to 0; 0 also where there is no such number.
	left int64
	// waits are the reasons for a lack of progress, as far as they are known.
	waits []string
}

// stuckLooks is how many polls must find the same before the reason is printed, because many waits
// end sooner.
const stuckLooks = 25

// patience counts polls with the same result.
type patience struct {
	state string
	looks int
}

// temper removes what need not be printed yet.
func (p *patience) temper(s stage) stage {
	p.looks++
	if s.state != p.state {
		p.state, p.looks = s.state, 0
	}
	if p.looks == 0 || p.looks%stuckLooks > 0 {
		s.waits = nil
	}
	return s
}

// follower shows progress to a waiting user.
type follower interface {
	show(stage)
	// end is called once, when nothing more will be shown.
	end(done bool)
}

// newFollower draws a progress bar on a terminal, and otherwise writes a line for every change.
func newFollower(w io.Writer) follower {
	if f, is := w.(*os.File); is && isTerminal(f) {
		return newBar(w)
	}
	return &lineFollower{w: w}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

type lineFollower struct {
	w           io.Writer
	said, cause string
}

func (l *lineFollower) show(s stage) {
	if s.state != "" && s.state != l.said {
		fmt.Fprintln(l.w, s.state)
		l.said, l.cause = s.state, ""
	}
	if cause := strings.Join(s.waits, "\n"); cause != "" && cause != l.cause {
		for _, why := range s.waits {
			fmt.Fprintln(l.w, "waiting: "+why)
		}
		l.cause = cause
	}
}

func (l *lineFollower) end(bool) {}

// bar is a progress bar. Without a number of what remains it moves back and forth.
type bar struct {
	writer  progress.Writer
	tracker *progress.Tracker
	drawn   chan struct{}
	state   string // that was shown last
}

const barPause = 100 * time.Millisecond

func newBar(w io.Writer) *bar {
	b := &bar{writer: progress.NewWriter(), tracker: &progress.Tracker{}, drawn: make(chan struct{})}
	b.writer.SetOutputWriter(w)
	b.writer.SetUpdateFrequency(barPause)
	b.writer.SetAutoStop(false)
	b.writer.Style().Visibility.Value = false
	b.writer.AppendTracker(b.tracker)
	go func() {
		defer close(b.drawn)
		b.writer.Render()
	}()
	return b
}

func (b *bar) show(s stage) {
	switch {
	case len(s.waits) > 0:
		b.tracker.UpdateMessage(s.state + "; waiting: " + strings.Join(s.waits, "; "))
	case s.state != "" && s.state != b.state:
		b.tracker.UpdateMessage(s.state)
	}
	b.state = s.state
	if s.left > b.tracker.Total {
		b.tracker.UpdateTotal(s.left)
	}
	if b.tracker.Total > 0 {
		b.tracker.SetValue(b.tracker.Total - s.left)
	}
}

func (b *bar) end(done bool) {
	if done {
		b.tracker.MarkAsDone()
	} else {
		b.tracker.MarkAsErrored()
	}
	// A renderer that has not begun would never notice that it should stop.
	for !b.writer.IsRenderInProgress() {
		time.Sleep(time.Millisecond)
	}
	b.writer.Stop()
	<-b.drawn
}
