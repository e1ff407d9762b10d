package cmd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
)

// stage is how far something is that a command waits for.
type stage struct {
	done bool
	// state says it in words; empty: nothing is known yet.
	state string
	// left is how much is still to be done, in a number that falls to 0; 0 also where there
	// is no such number.
	left int64
	// waits says why it does not get on, as far as that is known.
	waits []string
}

// stuckLooks is how many looks must find the same before it is said why: much that is
// waited for is over before.
const stuckLooks = 25

// patience counts looks that found the same.
type patience struct {
	state string
	looks int
}

// temper takes out of what was found what need not be said yet.
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

// follower tells a person who waits how far something is.
type follower interface {
	show(stage)
	// end is called once, when nothing more will be shown.
	end(done bool)
}

// newFollower draws a bar on a terminal, and writes a line for every change elsewhere.
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

// bar is a line that is drawn anew as it changes. What has no number of what is left moves
// to and fro.
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
	// A renderer that has not begun would never see that it should stop.
	for !b.writer.IsRenderInProgress() {
		time.Sleep(time.Millisecond)
	}
	b.writer.Stop()
	<-b.drawn
}
