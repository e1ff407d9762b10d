package proccluster

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
)

const (
	// tailLinesMax is what a failed test shows of each node.
	tailLinesMax = 60
	// lineBytesMax bounds a line that never ends.
	lineBytesMax = 64 << 10
)

// output receives what one node prints, over all its runs: it keeps everything in a
// file and the last lines in memory, and notices the ready line.
type output struct {
	readyLine string

	mu   sync.Mutex
	file io.Writer
	tail []string
	// ready is closed when the current run has printed the ready line.
	ready chan struct{}
}

func newOutput(file io.Writer, readyLine string) *output {
	return &output{file: file, readyLine: readyLine, ready: make(chan struct{})}
}

// begin starts a new run, which has its own readiness.
func (o *output) begin(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ready = make(chan struct{})
	o.line(fmt.Sprintf("--- %s", what))
}

func (o *output) readiness() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ready
}

func (o *output) line(text string) {
	// The log helps a reader; losing a line of it must not fail the test.
	_, _ = fmt.Fprintln(o.file, text)
	o.tail = append(o.tail, text)
	o.tail = o.tail[max(0, len(o.tail)-tailLinesMax):]
	if o.readyLine != "" && bytes.Contains([]byte(text), []byte(o.readyLine)) {
		select {
		case <-o.ready:
		default:
			close(o.ready)
		}
	}
}

func (o *output) lastLines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.tail)
}

// stream splits one of a process's outputs into lines.
type stream struct {
	out     *output
	partial []byte
}

func (s *stream) Write(p []byte) (int, error) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.partial = append(s.partial, p...)
	for {
		i := bytes.IndexByte(s.partial, '\n')
		if i < 0 {
			break
		}
		s.out.line(string(s.partial[:i]))
		s.partial = s.partial[i+1:]
	}
	if len(s.partial) > lineBytesMax {
		s.out.line(string(s.partial))
		s.partial = nil
	}
	return len(p), nil
}

// flush ends a last line that had no newline.
func (s *stream) flush() {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if len(s.partial) > 0 {
		s.out.line(string(s.partial))
		s.partial = nil
	}
}
