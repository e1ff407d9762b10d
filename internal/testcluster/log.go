package testcluster

import (
	"slices"
	"strings"
	"sync"
)

// logLinesMax is how much of each node's log a failed test shows.
const logLinesMax = 80

// nodeLog keeps what a node logged, over all its runs.
type nodeLog struct {
	mu    sync.Mutex
	lines []string
}

// Write takes one line, as slog's handlers write them.
func (l *nodeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (l *nodeLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

func (l *nodeLog) tail() string {
	lines := l.all()
	return strings.Join(lines[max(0, len(lines)-logLinesMax):], "\n")
}
